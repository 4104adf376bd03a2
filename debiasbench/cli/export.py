"""`debiasbench export`: the network of a run in a smaller form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import debug_option, load_plugins

if TYPE_CHECKING:
    from debiasbench.runs.export import Kind


@click.command()
@click.argument("record", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--to",
    type=click.Choice(["compact", "packed", "csr"]),
    default="compact",
    show_default=True,
    help="compact: without dead channels, needs only torch to load; packed: only the weights that "
    "are not 0; csr: packed, with sparse matrix products in the layers where they are faster.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file.  [default: beside the record]",
)
@debug_option
def export(record: Path, to: Kind, out: Path | None) -> None:
    """Write the network of a RECORD that was made with --keep-weights in a smaller form.

    Its outputs are first compared with those of the original network.
    """
    from debiasbench.runs.export import BATCH
    from debiasbench.runs.export import export as export_network

    done = export_network(record, load_plugins(), to=to, out=out)
    (all_parameters, parameters), (all_bytes, size) = done.parameters, done.bytes
    before, after = done.milliseconds
    click.echo(
        f"{parameters:,} of {all_parameters:,} parameters, {size:,} of {all_bytes:,} bytes, "
        f"{after:.2f} ms for {BATCH} samples instead of {before:.2f}; "
        f"outputs differ by at most {done.difference:.0e}"
    )
    if to == "csr":
        click.echo(f"Faster as sparse matrices here: {', '.join(done.layers) or 'no layer'}")
    click.echo(f"Model: {done.path}")

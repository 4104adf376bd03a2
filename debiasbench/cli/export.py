"""`debiasbench export`: write the network of a run in a smaller form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import debug_option, load_plugins, say
from debiasbench.cli.parsing import Command

if TYPE_CHECKING:
    from debiasbench.runs.export import Kind


@click.command(cls=Command)
@click.argument("record", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--to",
    type=click.Choice(["compact", "packed", "csr", "2:4"]),
    default="compact",
    show_default=True,
    help="compact: without dead channels, can be loaded with torch alone; packed: only the weights "
    "that are not 0; csr: like packed, and times sparse matrix products in the layers where they "
    "are faster; 2:4: like packed, and times the 2:4 kernels of an NVIDIA GPU in linear layers.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write.  [default: a file beside the record]",
)
@debug_option
def export(record: Path, to: Kind, out: Path | None) -> None:
    """Write the network of a RECORD in a smaller form.

    The record must be from a run with --keep-weights. Before the file is written, its outputs are
    compared with those of the original network.
    """
    from debiasbench.runs.export import BATCH
    from debiasbench.runs.export import export as export_network

    exported = export_network(record, load_plugins(), to=to, out=out)
    (all_parameters, parameters), (all_bytes, size) = exported.parameters, exported.bytes
    before, after = exported.milliseconds
    say(
        f"{parameters:,} of {all_parameters:,} parameters, {size:,} of {all_bytes:,} bytes, "
        f"{after:.2f} ms for {BATCH} samples instead of {before:.2f} ms; "
        f"outputs differ by at most {exported.difference:.0e}"
    )
    if to in {"csr", "2:4"}:
        layers = ", ".join(exported.layers) or "none"
        say(f"Layers that are faster as sparse matrices on this machine: {layers}")
    say(f"Model: {exported.path}")

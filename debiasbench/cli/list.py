"""`debiasbench list`: list all registered names and their origin."""

from __future__ import annotations

import click

from debiasbench.cli.common import debug_option, load_plugins
from debiasbench.cli.parsing import Command


@click.command("list", cls=Command)
@click.argument(
    "kinds", nargs=-1, type=click.Choice(["datasets", "models", "methods", "sparsifiers"])
)
@debug_option
def list_(kinds: tuple[str, ...]) -> None:
    """List data sets, models, methods and sparsifiers.

    These are builtin or from installed plugins. Sparsifiers are sparse training algorithms, for
    --sparse.
    """
    from tabulate import tabulate

    for kind, registry in load_plugins().kinds().items():
        if kinds and kind not in kinds:
            continue
        rows = [
            (name, str(entry.origin), entry.summary())
            for name, entry in zip(registry.display_names(), registry.values(), strict=True)
        ]
        click.echo(tabulate(rows, headers=(kind, "from", ""), tablefmt="plain") + "\n")

"""`debiasbench list`: what there is, and where it comes from."""

from __future__ import annotations

import click

from debiasbench.cli.common import debug_option, load_plugins


@click.command("list")
@click.argument(
    "kinds", nargs=-1, type=click.Choice(["datasets", "models", "methods", "sparsifiers"])
)
@debug_option
def list_(kinds: tuple[str, ...]) -> None:
    """List data sets, models, methods and sparse training algorithms, builtin or of plugins."""
    from tabulate import tabulate

    for kind, registry in load_plugins().kinds().items():
        if kinds and kind not in kinds:
            continue
        rows = [
            (name + "NAME" if name.endswith(":") else name, str(entry.origin), entry.summary())
            for name, entry in registry.items()
        ]
        click.echo(tabulate(rows, headers=(kind, "from", ""), tablefmt="plain") + "\n")

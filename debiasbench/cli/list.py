"""`debiasbench list`: list all registered names and their origin."""

from __future__ import annotations

from pathlib import Path

import click

from debiasbench.cli.common import data_root_option, debug_option, load_plugins, say
from debiasbench.cli.parsing import Command


@click.command("list", cls=Command)
@click.argument(
    "kinds",
    nargs=-1,
    type=click.Choice(["datasets", "models", "methods", "sparsifiers", "trackers"]),
)
@data_root_option
@debug_option
def list_(kinds: tuple[str, ...], data_root: Path) -> None:
    """List data sets, models, methods, sparsifiers and trackers.

    These are builtin or from installed plugins; data sets may also be imported. Sparsifiers are
    sparse training algorithms, for --sparse. Trackers listen to runs, and are only from plugins.
    """
    from tabulate import tabulate

    from debiasbench.files.importing import names

    for kind, registry in load_plugins().kinds().items():
        if kinds and kind not in kinds:
            continue
        rows = [
            (name, str(entry.origin), entry.summary())
            for name, entry in zip(registry.display_names(), registry.values(), strict=True)
        ]
        if kind == "datasets":
            own = "Your own data; `debiasbench show {}` describes them."
            rows += [(name, "imported", own.format(name)) for name in names(data_root)]
        if not rows and not kinds:
            continue
        say(tabulate(rows, headers=(kind, "from", ""), tablefmt="plain") + "\n")

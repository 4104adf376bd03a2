"""`debiasbench data remove`: remove an imported data set."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from debiasbench.cli.common import data_root_option, debug_option, say
from debiasbench.cli.parsing import Command


@click.command("remove", cls=Command)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@data_root_option
@debug_option
def remove(name: str, yes: bool, data_root: Path) -> None:
    """Remove the imported data set NAME.

    The images that it was imported from, and the records of its runs, are kept. Only files that
    `debiasbench data import` wrote under the data root are removed.
    """
    from debiasbench.common.names import IMPORTED
    from debiasbench.files import importing
    from debiasbench.files.task_cache import weight

    name = name.removeprefix(IMPORTED)
    folder = importing.check_removable(data_root, name)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(
                f"{folder} is not removed without a confirmation, and there is no terminal to ask. "
                "Add --yes"
            )
        size = f"{weight(folder) / 1e6:,.0f} MB"
        if not click.confirm(f"Remove {folder} ({size})?"):
            say("Nothing was removed")
            return
    importing.remove(data_root, name)
    say(f"Removed {folder}")

"""`debiasbench results rm`: remove records with their predictions and weights."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from debiasbench.cli.common import debug_option, results_option, say
from debiasbench.cli.parsing import Command
from debiasbench.cli.results.choosing import choice, choosing_options
from debiasbench.common.wording import counted


@click.command(cls=Command)
@click.argument("ids", nargs=-1, metavar="[ID|FILE]...")
@choosing_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@results_option
@debug_option
def rm(
    ids: tuple[str, ...],
    method: str | None,
    dataset: str | None,
    seed: str | None,
    failed: bool,
    yes: bool,
    results: Path,
) -> None:
    """Remove the records that match everything that is given.

    Records are given by their ids, the first digits of ids, or files, and by method, data set, seed
    or --failed. Each is removed with its predictions and weights, and nothing else. The record of
    a spec that is being run at the moment is not removed. The records are listed first.
    """
    from debiasbench.common.errors import BusyError
    from debiasbench.records.held import chosen, files, remove, summary

    wanted = choice(method, dataset, seed, failed, ids)
    if wanted.is_all:
        raise click.UsageError(
            "Nothing says which records to remove: give ids, --method, --dataset, --seed or "
            "--failed"
        )
    problems: list[str] = []
    found = chosen(results, wanted, problems)
    for problem in problems:
        say(f"Warning: {problem}", err=True)
    if not found:
        say("No record matches, so nothing was removed")
        return
    paths = [file for path, record in found for file in files(path, record)]
    size = summary(len(found), paths)
    for file in paths:
        say(file)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(
                f"{counted(len(found), 'record')} not removed without a confirmation, and there is "
                "no terminal to ask. Add --yes"
            )
        if not click.confirm(f"Remove {size}?"):
            say("Nothing was removed")
            return
    removed, busy = 0, []
    for path, record in found:
        try:
            remove(path, record)
        except BusyError as error:
            busy.append(str(error))
        else:
            removed += 1
    say(f"Removed {size}" if not busy else f"Removed {counted(removed, 'record')}")
    if busy:
        raise BusyError(f"{counted(len(busy), 'record')} not removed: {busy[0]}")

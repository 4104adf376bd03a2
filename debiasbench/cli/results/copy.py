"""`debiasbench results push` and `pull`: copy records to another place, or from there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from debiasbench.cli.common import debug_option, interruptible, results_option, say
from debiasbench.cli.parsing import Command
from debiasbench.cli.results.choosing import choice, choosing_options
from debiasbench.common.errors import RecordError
from debiasbench.common.signals import check

if TYPE_CHECKING:
    from collections.abc import Callable

    from debiasbench.records.held import Choice
    from debiasbench.records.places.copying import Tally
    from debiasbench.records.places.shelf import Shelf


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the place and the options that both commands have."""
    for option in (
        interruptible,
        debug_option,
        click.option("--quiet", is_flag=True, help="Do not show progress."),
        results_option,
        click.option("--with-weights", is_flag=True, help="Copy weights of networks too."),
        choosing_options,
        click.argument("place", metavar="PLACE"),
    ):
        command = option(command)
    return command


@click.command(cls=Command)
@_options
def push(place: str, results: Path, with_weights: bool, quiet: bool, **chosen: Any) -> None:
    """Copy records from the results folder to PLACE.

    PLACE is a folder, or a URL that fsspec knows, such as s3://BUCKET/FOLDER, gs://BUCKET/FOLDER
    or hf://datasets/USER/NAME. Credentials come from the environment. Records that are there
    already are skipped, and the record of a failed run is replaced by one of a run that succeeded.
    Two different records of one spec are a conflict: it is named, nothing is overwritten, and the
    exit code is 9. Predictions are copied with the records, and files of searches unless records
    are chosen; checkpoints are not.
    """
    from debiasbench.records.places.folder import FolderShelf
    from debiasbench.records.places.place import shelf

    here, there = FolderShelf(results), shelf(place)
    if not here.exists():
        raise RecordError(f"No results at {results}: there is nothing to push")
    _copy(here, there, choice(**chosen), with_weights, "pushed", quiet)


@click.command(cls=Command)
@_options
def pull(place: str, results: Path, with_weights: bool, quiet: bool, **chosen: Any) -> None:
    """Copy records from PLACE to the results folder.

    The opposite of `debiasbench results push`, which describes PLACE and conflicts. A record is
    stored if it can be read, its id is that of its spec, and its predictions have the SHA-256 that
    it names. Its file name here follows from its spec.
    """
    from debiasbench.records.places.folder import FolderShelf
    from debiasbench.records.places.place import shelf

    here, there = FolderShelf(results), shelf(place)
    if not there.exists():
        raise RecordError(f"No results at {there.title}: give a place to which records were pushed")
    _copy(there, here, choice(**chosen), with_weights, "pulled", quiet)


def _copy(
    source: Shelf, target: Shelf, wanted: Choice, with_weights: bool, verb: str, quiet: bool
) -> None:
    from debiasbench.common.display import display
    from debiasbench.records.places.copying import Copying

    copying = Copying(source, target, wanted=wanted, with_weights=with_weights)
    with display("files", quiet=quiet) as progress:
        tally = copying.run(progress, check, title=f"{source.title} to {target.title}")
    for message in tally.warnings:
        say(f"Warning: {message}", err=True)
    for kind in (tally.conflicts, tally.busy, tally.bad):
        for message in kind:
            say(message, err=True)
    if tally.conflicts:
        say(
            "To settle a conflict, remove the record that you do not want: here with `debiasbench "
            "results rm ID`, there by its file",
            err=True,
        )
    say(tally.text(verb))
    click.get_current_context().exit(_code(tally))


def _code(tally: Tally) -> int:
    from debiasbench.common.errors import BusyError

    if tally.conflicts or tally.bad:
        return RecordError.exit_code
    return BusyError.exit_code if tally.busy else 0

"""`debiasbench verify`: check that records are consistent with themselves and their predictions."""

from __future__ import annotations

from pathlib import Path

import click

from debiasbench.cli.common import debug_option, say
from debiasbench.cli.parsing import Command
from debiasbench.common.wording import counted


@click.command(cls=Command)
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--migrate",
    "rewrite",
    is_flag=True,
    help="First convert records of older schemas to the current schema and file names. "
    "Predictions and provenance are kept.",
)
@debug_option
def verify(results: tuple[Path, ...], rewrite: bool) -> None:
    """Check that the records in RESULTS are consistent.

    RESULTS are files or folders; the default is the folder results. Ids are computed from specs,
    hits and group counts from predictions, and metrics from hits, and compared with the record. If
    a record is damaged or contradicts itself, the exit code is 9.
    """
    from debiasbench.common.errors import RecordError
    from debiasbench.records.reading import stream
    from debiasbench.records.verify import examine

    places = results or (Path("results"),)
    if rewrite:
        _migrate(places)
    problems: list[str] = []  # what is wrong with files that cannot be read
    contradictions: list[tuple[Path, list[str]]] = []
    unverified: list[tuple[Path, str]] = []
    records = 0
    for path, record in stream(places, problems):
        records += 1
        found = examine(path, record)
        if found.messages:
            contradictions.append((path, found.messages))
        elif found.unverified:
            unverified.append((path, found.unverified))
    for problem in problems:
        say(problem)
    for path, messages in contradictions:
        for message in messages:
            say(f"{path} contradicts itself: {message}")
    for path, reason in unverified:
        say(f"{path} cannot be verified: {reason}")
    counts = {
        "verified": records - len(contradictions) - len(unverified),
        "without predictions": len(unverified),
        "contradictory": len(contradictions),
        "unreadable": len(problems),
    }
    summary = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n or kind == "verified")
    say(f"{counted(records + len(problems), 'record')}: {summary}")
    if bad := len(contradictions) + len(problems):
        raise RecordError(f"{counted(bad, 'bad record')}: see above")


def _migrate(places: tuple[Path, ...]) -> None:
    from debiasbench.common.errors import RecordError
    from debiasbench.records.migrate import is_current, migrate
    from debiasbench.records.reading import read_all

    for path, _ in read_all(places)[0]:
        if not path.exists() or is_current(path):
            continue  # it was replaced when another record was migrated
        try:
            say(f"{path} -> {migrate(path).name}")
        except RecordError as error:
            say(f"Warning: {error}", err=True)

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
@click.option(
    "--references",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of reference labels.  [default: a folder references beside or above the records]",
)
@click.option(
    "--write-references",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the labels of the records' data to this folder, as a reference for later records.",
)
@click.option(
    "--rows",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Check that each row that this file lists has a record or is withdrawn.",
)
@click.option("--add-rows", is_flag=True, help="Add the rows that are new to the file of --rows.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Format of the report.",
)
@debug_option
def verify(
    results: tuple[Path, ...],
    rewrite: bool,
    references: Path | None,
    write_references: Path | None,
    rows: Path | None,
    add_rows: bool,
    form: str,
) -> None:
    """Check that the records in RESULTS are consistent.

    RESULTS are files or folders; the default is the folder results. Ids are computed from specs,
    hits and group counts from predictions, metrics from hits, and the epochs of selection rules
    from validation curves; records on the same data must have the same labels, and different seeds
    different predictions. Each finding has a code: E is an error, W needs a look. If there is an
    error, the exit code is 9.
    """
    places = results or (Path("results"),)
    if add_rows and rows is None:
        raise click.UsageError("--add-rows needs --rows FILE")
    on_stderr = form == "json"  # then stdout has the report alone
    if rewrite:
        _migrate(places, err=on_stderr)
    check_places(places, references, write_references, form)
    if rows is not None:
        _rows(places, rows, add=add_rows, err=on_stderr)


def check_places(
    places: tuple[Path, ...],
    references: Path | None = None,
    write_references: Path | None = None,
    form: str = "text",
) -> None:
    """Print what verification finds in records; raises `RecordError` if any is bad."""
    from debiasbench.common.errors import RecordError
    from debiasbench.records.report import verified

    report, written = verified(places, references, write_references)
    if form == "json":
        click.echo(report.as_json(), nl=False)
    else:
        for line in report.lines():
            say(line)
        for file in written:
            say(f"Wrote {file}")
    if report.bad:
        raise RecordError(f"{counted(report.bad, 'bad record')}: see above")


def _rows(places: tuple[Path, ...], file: Path, *, add: bool, err: bool) -> None:
    from debiasbench.common.errors import RecordError
    from debiasbench.records.rows import added, lost

    if missing := lost(file, places):
        for row in missing:
            say(f"{file}: there is no record of the row {row}", err=err)
        raise RecordError(
            f"{counted(len(missing), 'row')} of {file} disappeared: put the records back, or "
            "withdraw them in withdrawn.toml"
        )
    say(f"Every row of {file} is there", err=err)
    if add and (new := added(file, places)):
        say(f"Added {counted(len(new), 'row')} to {file}", err=err)


def _migrate(places: tuple[Path, ...], *, err: bool) -> None:
    from debiasbench.common.errors import RecordError
    from debiasbench.records.archive import is_unpacked
    from debiasbench.records.migrate import is_current, migrate
    from debiasbench.records.reading import read_all

    for path, _ in read_all(places)[0]:
        if not path.exists() or is_current(path):
            continue  # it was replaced when another record was migrated
        if is_unpacked(path):
            say(f"Warning: {path.name} lies in an archive, which is not changed", err=True)
            continue
        try:
            say(f"{path} -> {migrate(path).name}", err=err)
        except RecordError as error:
            say(f"Warning: {error}", err=True)

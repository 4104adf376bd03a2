"""`debiasbench results ls`: list the records in files and folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from debiasbench.cli.common import debug_option, say
from debiasbench.cli.parsing import Command
from debiasbench.cli.results.choosing import choice, choosing_options
from debiasbench.common.wording import counted, printable

if TYPE_CHECKING:
    from debiasbench.records.record import Record

SHOWN = ("id", "dataset", "model", "method", "options", "seed", "status", "accuracy", "verified")


@click.command(cls=Command)
@click.argument("places", nargs=-1, type=click.Path(path_type=Path), metavar="[PLACE]...")
@choosing_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "csv", "json", "markdown"]),
    default="text",
    show_default=True,
    help="Format of the list. csv and json also have the paths of the files.",
)
@debug_option
def ls(
    places: tuple[Path, ...],
    method: str | None,
    dataset: str | None,
    seed: str | None,
    failed: bool,
    form: str,
) -> None:
    """List the records in each PLACE, a file or a folder; the default is the folder results.

    The accuracy is that of the data set, at the epoch that its selection rule keeps. Records that
    are damaged or contradict themselves are named on stderr.
    """
    from tabulate import tabulate

    from debiasbench.leaderboard import flat
    from debiasbench.leaderboard.gather import gather
    from debiasbench.leaderboard.markup import MARKDOWN

    wanted = choice(method, dataset, seed, failed)
    gathered = gather(places or (Path("results"),))
    for problem in gathered.problems:
        say(f"Warning: {problem}", err=True)
    found = [record for record in gathered.records if wanted.has(record)]
    rows = [
        _row(record, gathered.paths[record.id], record.id not in gathered.unverified)
        for record in found
    ]
    if form == "csv":
        click.echo(flat.lines(rows), nl=False)
        return
    if form == "json":
        click.echo(flat.text(rows), nl=False)
        return
    cells = [[_cell(name, row[name]) for name in SHOWN] for row in rows]
    if form == "markdown":
        cells = [[MARKDOWN.text(cell) for cell in row] for row in cells]
        click.echo(tabulate(cells, SHOWN, "pipe", disable_numparse=True))
        return
    cells = [[printable(" ".join(cell.split())) for cell in row] for row in cells]
    head = [name if name != "accuracy" else "accuracy %" for name in SHOWN]
    say(tabulate(cells, head, "simple", disable_numparse=True))
    bad = sum(record.status == "failed" for record in found)
    say(f"\n{counted(len(rows), 'record')}{f', {bad:,} of failed runs' if bad else ''}")


def _row(record: Record, path: Path, verified: bool) -> dict[str, Any]:
    import math

    from debiasbench.leaderboard.frame import label
    from debiasbench.records.metrics import METRICS
    from debiasbench.records.record import test_counts

    spec, rule = record.spec, record.task.select
    value = math.nan
    if rule in record.outcomes:
        value = METRICS[record.task.metric](test_counts(record, record.outcomes[rule]))
    failure = record.failure
    return {
        "id": record.id,
        "dataset": label(spec.dataset),
        "model": label(spec.model),
        "method": " + ".join(part.name for part in (spec.method, spec.sparse) if part),
        "options": label(spec.method).removeprefix(spec.method.name).strip(),
        "seed": spec.seed,
        "status": record.status if failure is None else f"failed: {failure.kind}",
        "metric": record.task.metric,
        "select": rule,
        "accuracy": None if math.isnan(value) else value,
        "verified": verified and record.status == "ok",
        "file": str(path),
    }


def _cell(name: str, value: object) -> str:
    if name == "accuracy":
        return f"{100 * value:.1f}" if isinstance(value, float) else "—"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)

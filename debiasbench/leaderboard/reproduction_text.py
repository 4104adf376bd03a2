"""Published values beside ours as tables of text, and as CSV and JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import RecordError
from debiasbench.common.wording import counted
from debiasbench.leaderboard import cells, flat
from debiasbench.leaderboard.gather import gather
from debiasbench.leaderboard.grid import Cell, Grid
from debiasbench.leaderboard.render import heading, written
from debiasbench.leaderboard.reproduction import CLOSE, reproduction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from debiasbench.leaderboard.published import Published, Source
    from debiasbench.leaderboard.reproduction import Line, Reproduction
    from debiasbench.specs.spec import Spec

HEADER = (
    "runs",
    "published",
    "ours",
    "difference",
    "deviations",
    "verdict",
    "95 % interval",
    "seeds",
)
MEANING = (
    "Difference: ours minus published, in points. Deviations: the difference, divided by the "
    "standard error of a difference, which has the seeds of both and our test samples. "
    f"Within {CLOSE:g}: chance explains it."
)
ASSUMED = "~ The spread is not printed; ours stands for it."


def judged(
    published: Published, specs: Iterable[Spec], results: Path, form: str, *, styled: bool = False
) -> tuple[str, list[str]]:
    """Return the table of published values beside records, and a message for each bad record.

    `specs`: all runs of the suite. `results`: a folder of records, which need not exist. `form`,
    `styled`: see `render.written`.
    """
    try:
        gathered = gather([results], published.select)
    except RecordError:  # there is no record yet
        gathered = None
    found = reproduction(published, list(specs), gathered)
    text = FLAT[form]([found]) if form in FLAT else written(grids(found), form, styled=styled)
    return text, [] if gathered is None else gathered.problems


def grids(found: Reproduction) -> list[Grid]:
    """Lay out one table, with a section for each source."""
    lines = found.lines
    title = (
        f"Published values of {found.published.suite}: {cells.words(found.published.metric)} "
        f"accuracy in %, {cells.epoch(found.published.select)}"
    )
    return [
        Grid(
            heading(title),
            HEADER,
            [_row(line) for line in lines],
            [_section(line.value.source) for line in lines],
            list(_remarks(found)),
        )
    ]


def _section(source: Source) -> str:
    seeds = "" if source.seeds is None else f"; {counted(source.seeds, 'seed')}"
    return f"{source.citation}. {source.place}{seeds}"


def _row(line: Line) -> list[Cell]:
    value, row = line.value, line.row
    spread = "" if line.assumed else f" ± {_printed(value.deviation)}"
    done = f"{line.done} of {line.runs}" + (f", {line.failed} failed" if line.failed else "")
    near = "~" if line.assumed else ""
    deviations = "—" if math.isnan(line.deviations) else f"{near}{line.deviations:+.1f}"
    return [
        Cell(value.title),
        Cell(f"{_printed(value.accuracy)}{spread}"),
        Cell("—" if row is None else cells.mean(row)),
        Cell("—" if math.isnan(line.difference) else cells.signed(line.difference)),
        Cell(deviations),
        Cell(line.verdict),
        Cell("—" if row is None else cells.bounds(row)),
        Cell(done),
    ]


def _printed(fraction: float) -> str:
    """Write a fraction in percent with as many digits as the source prints."""
    return f"{round(100 * fraction, 6):g}"


def _remarks(found: Reproduction) -> Iterator[str]:
    yield MEANING
    if any(line.assumed for line in found.lines):
        yield ASSUMED
    for source in found.published.sources.values():
        if source.differs:
            yield f"{source.citation}: {source.differs}, so there is no verdict."
        yield from (f"{source.citation}: {note}" for note in source.notes)
    yield from found.notes
    verdicts = [line.verdict for line in found.lines]
    counts = [f"{verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts)]
    yield f"{len(verdicts)} values: {', '.join(counts)}."


def as_csv(found: Sequence[Reproduction]) -> str:
    """Write a line for each published value."""
    rows = [_flat(line, each) for each in found for line in each.lines]
    return flat.lines([{**row, "records": " ".join(row["records"])} for row in rows])


def as_json(found: Sequence[Reproduction]) -> str:
    """Write a list of suites, each with its values."""
    return flat.text(
        [
            {
                "suite": each.published.suite,
                "metric": each.published.metric,
                "select": each.published.select,
                "notes": list(each.notes),
                "values": [_flat(line, each) for line in each.lines],
            }
            for each in found
        ]
    )


def _flat(line: Line, found: Reproduction) -> dict[str, Any]:
    value, row = line.value, line.row
    return {
        "suite": found.published.suite,
        "metric": found.published.metric,
        "select": found.published.select,
        "runs": value.title,
        "source": value.source.citation,
        "place": value.source.place,
        "published": value.accuracy,
        "published_deviation": flat.blank(value.deviation),
        "published_seeds": value.source.seeds,
        "ours": None if row is None else flat.blank(row.mean),
        "low": None if row is None else flat.blank(row.interval.low),
        "high": None if row is None else flat.blank(row.interval.high),
        "seeds": line.done,
        "planned": line.runs,
        "failed": line.failed,
        "difference": flat.blank(line.difference),
        "deviations": flat.blank(line.deviations),
        "verdict": line.verdict,
        "records": [] if row is None else row.records,
    }


FLAT = {"csv": as_csv, "json": as_json}

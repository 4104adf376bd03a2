"""The table of a board: rows with pictures, what limits them, and links to their records."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from debiasbench.leaderboard import cells
from debiasbench.leaderboard.columns import COLUMNS, SEARCH, accuracy
from debiasbench.leaderboard.comparison import is_noise
from debiasbench.leaderboard.frame import plain
from debiasbench.leaderboard.notes import TRUST
from debiasbench.leaderboard.row import SIDE_METRICS
from debiasbench.leaderboard.site.picture import Scale
from debiasbench.leaderboard.site.table import Cell, Heading, Line, Link, Section, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.row import Row
    from debiasbench.leaderboard.site.content import Content, Place
    from debiasbench.leaderboard.site.links import Links

COSTS = ("density", "parameters", "inference_flops", "training_flops", "seconds")
BASIS = {
    "both": "over seeds and test samples",
    "seeds": "over seeds alone, so too narrow",
    "samples": "over test samples alone",
}


def board_table(content: Content, place: Place, board: Board, links: Links, name: str) -> Table:
    """Lay out a board; `name` is unique in the page."""
    scale = Scale.around(v for r in board.rows for v in (r.mean, r.interval.low, r.interval.high))
    worst = Scale.around(
        v
        for row in board.rows
        for v in (_worst(row, board), row.worst.low, row.worst.high, row.floor)
    )
    words = cells.words(board.metric)
    return Table(
        name=name,
        caption=f"{words.capitalize()} accuracy on {place.title}, {cells.epoch(board.rule)}",
        headings=[*_headings(board, scale, worst)],
        sections=[
            Section(
                section,
                [_line(content, row, board, links, scale, worst) for row in rows],
            )
            for section, rows in sections(board).items()
        ],
    )


def sections(board: Board) -> dict[str, list[Row]]:
    """Return the rows of each section, in order."""
    found: dict[str, list[Row]] = {}
    for row in board.rows:
        found.setdefault(cells.section(row), []).append(row)
    return found


def _sides(board: Board) -> list[str]:
    """Name the other metrics of a table; the worst group has pictures of its own."""
    return [name for name in SIDE_METRICS[:2] if name not in {board.metric, "worst_group"}]


def _costs(board: Board) -> tuple[str, ...]:
    """Name the costs of a table; those of searches only if a row is tuned."""
    return (*COSTS, *SEARCH) if any(row.found_by for row in board.rows) else COSTS


def _headings(board: Board, scale: Scale, worst: Scale) -> Iterator[Heading]:
    yield Heading("method", "method", 1)
    yield Heading("accuracy", f"{cells.words(board.metric)} %", -1, "mean ± standard deviation")
    title = "sorted by its lower end"
    yield Heading("interval", "95 % interval", -1, title, "plot", scale.axis())
    yield Heading("rank", "rank", 1, "within the section; the ranges hold together at 95 %")
    if board.baseline:
        yield Heading("difference", f"minus {board.baseline}, points", -1, "over common seeds")
    if board.metric != "worst_group":
        title = "with its 95 % interval; the tick is what a fair classifier would show by chance"
        yield Heading("worst_group", "worst group %", -1, title, "plot", worst.axis())
    for name in _sides(board):
        yield Heading(name, f"{cells.words(name)} %", -1)
    for name in _costs(board):
        yield Heading(name, COLUMNS[name].heading(board), 1, kind="cost")
    yield Heading("seeds", "records, by seed", -1, "sorted by their number")


def _line(
    content: Content, row: Row, board: Board, links: Links, scale: Scale, worst: Scale
) -> Line:
    interval = row.interval
    label = f"{cells.percent(row.mean)} %, 95 % interval {cells.bounds(row)} %"
    parts = ", ".join(
        f"{name} ±{100 * half:.1f}"
        for name, half in (("seeds", interval.seeds), ("samples", interval.samples))
        if not math.isnan(half)
    )
    made = [
        Cell(
            COLUMNS["accuracy"].text(row, board),
            row.mean,
            strong=row.marked,
        ),
        Cell(
            cells.bounds(row),
            interval.low,
            f"{BASIS[interval.basis]}: {parts}" if parts else "",
            scale.dot(row.mean, interval.low, interval.high, label),
        ),
        Cell(cells.rank(row), sum(row.rank[:2]) / 2 if row.rank else math.nan),
    ]
    if board.baseline:
        p = row.difference.p
        made.append(
            Cell(
                cells.difference(row.difference),
                row.difference.mean,
                "" if math.isnan(p) else f"p = {p:.2g}",
            )
        )
    if board.metric != "worst_group":
        made.append(_worst_cell(row, board, worst))
    for name in _sides(board):
        made.append(Cell(COLUMNS[name].text(row, board), accuracy(row, board, name)))
    machines = "; ".join(sorted({content.records[one].provenance.hardware for one in row.records}))
    for name in _costs(board):
        text = COLUMNS[name].text(row, board)
        value = COLUMNS[name].rank(row, board)
        made.append(Cell(text, value, machines if name == "seconds" else ""))
    made.append(Cell(value=len(row.values), links=records(content, row, links)))
    about = content.known_of(row).summary
    return Line(
        Link(row.method, links.method(row.method), about),
        made,
        badges(content, row),
        row.marked,
        row.setting,
    )


def _worst(row: Row, board: Board) -> float:
    return accuracy(row, board, "worst_group")


def _worst_cell(row: Row, board: Board, scale: Scale) -> Cell:
    value, low, high = _worst(row, board), row.worst.low, row.worst.high
    known = [] if math.isnan(low) else [f"95 % interval {100 * low:.1f} – {100 * high:.1f} %"]
    if not math.isnan(row.floor):
        noise = ", so it says little here" if is_noise(row) else ""
        known.append(f"a fair classifier would show {100 * row.floor:.1f} % by chance{noise}")
    said = "; ".join(known)
    return Cell(
        COLUMNS["worst_group"].text(row, board),
        value,
        said,
        scale.dot(value, low, high, f"worst group {cells.percent(value)} %; {said}", row.floor),
    )


def records(content: Content, row: Row, links: Links) -> Sequence[Link]:
    """Link the records of a row by their seeds; those without a value say why."""
    found = []
    for name in row.records:
        seed = content.records[name].spec.seed
        why = row.failed.get(seed, row.missing.get(seed, ""))
        found.append(Link(f"{seed} ✗" if why else str(seed), links.record(name), why))
    return found


def badges(content: Content, row: Row) -> list[Link]:
    """Say in words what limits a row."""
    found = []
    if row.stale:
        found.append(Link("stale", title=f"not compared: {row.stale}"))
    if row.trust:
        found.append(Link(row.trust, title=TRUST[row.trust]))
    bad = [one for one in row.records if one in content.gathered.unverified]
    if bad:
        which = "" if len(bad) == len(row.records) else f" {len(bad)} of {len(row.records)}"
        found.append(Link(f"unverified{which}", title="predictions are missing"))
    planned = len(row.values) + len(row.failed) + len(row.missing)
    if row.failed:
        reasons = "; ".join(dict.fromkeys(row.failed.values()))
        found.append(Link(f"failed {len(row.failed)} of {planned}", title=reasons))
    if len(row.values) == 1:
        found.append(Link("one seed", title="the interval is over test samples alone"))
    elif row.interval.basis == "seeds" and row.values:
        found.append(Link("seeds only", title="its interval is too narrow"))
    return found


def options(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Write the options of each row that has any: its name, and names with values."""
    return [
        (row.name, ", ".join(f"{k}={plain(v)}" for k, v in sorted(row.options.items())))
        for row in rows
        if row.options
    ]

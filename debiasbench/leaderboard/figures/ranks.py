"""Ranks with their intervals: one line for each row, grouped by section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from debiasbench.leaderboard import cells
from debiasbench.leaderboard.figures.figure import Axis, Bar, Figure, Heading, Tick
from debiasbench.leaderboard.figures.words import accuracies, title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.figures.figure import Mark

LINE = 22.0  # pixels from one row to the next
TICKS = 10  # of the axis, at most


@dataclass(frozen=True)
class Ranked:
    """The rank of a row, or its mean rank over data sets, with its interval. 1 is the best.

    `strong`: whether the row is the best, or not distinguishable from it.
    """

    name: str
    rank: float
    low: float
    high: float
    strong: bool = False


def ranks(board: Board) -> Figure | None:
    """Return the ranks of all rows, section by section; None if no row has a rank.

    The dot is the rank by the mean accuracy, the bar the interval of ranks.
    """
    sections = []
    for level in dict.fromkeys(row.level for row in board.rows):
        rows = [row for row in board.rows if row.level == level and row.rank is not None]
        rows.sort(key=lambda row: -row.mean)
        ranked = [
            Ranked(row.name, number, *row.rank[:2], row.marked)
            for number, row in enumerate(rows, start=1)
            if row.rank is not None
        ]
        if ranked:
            sections.append((cells.section(rows[0]), ranked))
    if not sections:
        return None
    without = [row.name for row in board.rows if row.rank is None]
    return of_ranks(
        title(board, f"Ranks by {cells.words(board.metric)} accuracy"),
        sections,
        notes=(
            f"{accuracies(board)}, mean over seeds, {cells.epoch(board.rule)}. Dots: the order of "
            "the means. Bars: the ranks that comparisons of all pairs of a section allow (5 % for "
            "all together). Strong colour: the best of its section, and those that are not "
            "distinguishable from it.",
            *([f"Without a rank: {', '.join(without)}."] if without else []),
        ),
    )


def of_ranks(
    heading: str,
    sections: Sequence[tuple[str, Sequence[Ranked]]],
    *,
    label: str = "rank",
    notes: tuple[str, ...] = (),
) -> Figure:
    """Return a figure of ranks, or of mean ranks; each section has words above it."""
    marks: list[Mark] = []
    ticks = []
    line = 0.0
    for words, rows in sections:
        if words and len(sections) > 1:
            marks.append(Heading(-line, words))
            line += 1
        for row in rows:
            ticks.append(Tick(-line, row.name))
            text = f"{row.name}: rank {row.rank:g}, between {row.low:g} and {row.high:g}."
            marks.append(Bar(-line, row.rank, row.low, row.high, row.strong, text))
            line += 1
    last = max(row.high for _, rows in sections for row in rows)
    step = max(1, -(-int(last) // TICKS))
    places = sorted({1, *range(step, int(last) + 1, step)} - ({2} if step == 2 else set()))
    return Figure(
        title=heading,
        x=Axis(label, 0.5, last + 0.5, tuple(Tick(at, str(at)) for at in places)),
        y=Axis("", 0.6 - line, 0.6, tuple(ticks)),
        marks=tuple(marks),
        notes=notes,
        width=320.0,
        height=LINE * (line + 0.2),
    )

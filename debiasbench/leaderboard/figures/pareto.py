"""Accuracy against one cost, and which rows are on the Pareto front of their section."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING

from debiasbench.common.errors import UnknownNameError
from debiasbench.leaderboard import cells
from debiasbench.leaderboard.comparison import RANKED, is_comparable
from debiasbench.leaderboard.figures.axes import accuracy_axis, log_axis
from debiasbench.leaderboard.figures.figure import Dots, Figure, Key, Point, Steps
from debiasbench.leaderboard.figures.words import (
    accuracies,
    incomplete,
    intervals,
    numbers,
    shown,
    title,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.figures.figure import Look, Mark
    from debiasbench.leaderboard.row import Row

PARETO = {  # name on the command line, as of a column -> heading of `cells.COSTS`, and the axis
    "inference_flops": ("MFLOPs to predict", "MFLOPs to predict a sample"),
    "training_flops": ("TFLOPs to train", "TFLOPs to train"),
    "parameters": ("parameters", "parameters of the network that predicts"),
    "seconds": ("seconds", "seconds to train"),
}
CHEAPER = 0.95  # of a cost: a row at least as good and cheaper than this part dominates
NAMED = 14  # dots up to which those have names and bars that are not on a front
FRONT, NOISE, BEHIND, ALONE = "front", "within the noise of the front", "dominated", "not compared"
LOOKS: dict[str, Look] = {FRONT: "full", NOISE: "hollow", BEHIND: "faint", ALONE: "faint"}


class Worse:
    """Which rows of a board are significantly worse, tested once for figures of several costs."""

    def __init__(self, board: Board) -> None:
        self._board = board  # keeps the rows alive, so that no other row gets their ids
        self._known: dict[tuple[int, ...], Collection[tuple[int, int]]] = {}

    def among(self, rows: Sequence[Row]) -> Collection[tuple[int, int]]:
        """Return `Comparison.worse` of some rows; no pairs if the rows are not tested."""
        comparison = self._board.comparison
        if comparison is None or not 2 <= len(rows) <= RANKED:
            return ()
        key = tuple(map(id, rows))
        if key not in self._known:
            self._known[key] = comparison.worse(rows)
        return self._known[key]


def pareto(board: Board, cost: str, worse: Worse | None = None) -> Figure | None:
    """Return the accuracy of all rows against a cost of `PARETO`, with the front of each section.

    `worse`: of the board, shared by its figures of other costs. None if no row has this cost, and
    for seconds that were measured on different machines. Raises `UnknownNameError` for an unknown
    cost.
    """
    if cost not in PARETO:
        raise UnknownNameError("cost", cost, PARETO)
    if cost == "seconds" and len(board.hardware) > 1:
        return None
    heading, label = PARETO[cost]
    name, unit, form = cells.COSTS[heading]
    rows = [row for row in shown(board) if row.costs[name] > 0]
    free = [row.name for row in shown(board) if row.costs[name] == 0]
    if not rows:
        return None
    worse = worse or Worse(board)
    marks: list[Mark] = []
    states: set[str] = set()
    sections = list(dict.fromkeys(row.level for row in rows))
    for series, level in enumerate(sections):
        section = [row for row in rows if row.level == level]
        found = standing(board, section, name, worse)
        states |= set(found)
        front = sorted(
            (row.costs[name] / unit, row.mean)
            for row, state in zip(section, found, strict=True)
            if state == FRONT
        )
        if front:
            marks.append(Steps(tuple(front), series))
        for state in dict.fromkeys(found):
            points = []
            crowded = LOOKS[state] == "faint" and len(rows) > NAMED
            for row, own in zip(section, found, strict=True):
                if own != state:
                    continue
                at = row.costs[name] / unit
                text = f"{row.name}, {form.format(at)} {heading}: {numbers(row)}, {state}."
                low, high = (nan, nan) if crowded else (row.interval.low, row.interval.high)
                points.append(Point(at, row.mean, low, high, text, "" if crowded else row.name))
            marks.append(Dots(tuple(points), series, LOOKS[state]))
    drawn = [point for mark in marks if isinstance(mark, Dots) for point in mark.points]
    values = [value for point in drawn for value in (point.y, point.low, point.high)]
    return Figure(
        title=title(board, f"{accuracies(board)} against {heading}"),
        x=log_axis(label, [row.costs[name] / unit for row in rows], form.format),
        y=accuracy_axis(f"{cells.words(board.metric)} accuracy (%)", values),
        marks=tuple(marks),
        notes=(
            f"Mean over seeds, {cells.epoch(board.rule)}; the axis of the cost is logarithmic. "
            f"Bars: {intervals(rows)}",
            "Dashed: the Pareto front of each section. A row is dominated if another row of its "
            "section has at least its accuracy at no larger cost, and is significantly better or "
            f"more than {round(100 * (1 - CHEAPER))} % cheaper.",
            *_not_compared(rows, cost, board),
            *([f"Not drawn, at no cost: {', '.join(free)}."] if free else []),
            *incomplete(board, name),
        ),
        keys=(*_of_sections(rows, sections), *_of_looks(states)),
        width=400.0,
        height=280.0,
    )


def standing(board: Board, section: Sequence[Row], cost: str, tested: Worse) -> list[str]:
    """Return for each row of a section how it stands to the front: `FRONT`, `NOISE`, and so on.

    `cost`: a name of `Row.costs`. A row is dominated if another one is at least as good in both,
    and significantly better (5 % over all pairs of the section) or more than 5 % cheaper.
    Rows that are only within the noise of a better one are `NOISE`. Rows with failed runs or one
    seed are not compared, and none by a worst group that says too little.
    """
    compared = [row for row in section if is_comparable(row)]
    if board.comparison is not None and not board.comparison.ranks(compared):
        return [ALONE] * len(section)
    worse = tested.among(compared)
    states = {}
    for i, row in enumerate(compared):
        own = row.costs[cost]
        better = [
            (j, other.costs[cost])
            for j, other in enumerate(compared)
            if other.mean >= row.mean
            and other.costs[cost] <= own
            and (other.mean > row.mean or other.costs[cost] < own)
        ]
        if any((i, j) in worse or theirs < CHEAPER * own for j, theirs in better):
            states[id(row)] = BEHIND
        else:
            states[id(row)] = NOISE if better else FRONT
    return [states.get(id(row), ALONE) for row in section]


def _not_compared(rows: Sequence[Row], cost: str, board: Board) -> list[str]:
    sentences = []
    if alone := [row.name for row in rows if not is_comparable(row)]:
        sentences.append(
            f"Not compared, because of failed runs or a single seed: {', '.join(alone)}."
        )
    if board.comparison is not None and not board.comparison.ranks(rows):
        sentences.append("No fronts: groups have so few test samples that chance decides.")
    if len(rows) > RANKED:
        sentences.append(f"No tests in sections of more than {RANKED} rows.")
    if cost == "seconds":
        sentences.append(f"Seconds on {board.hardware[0]}." if board.hardware else "")
    return [sentence for sentence in sentences if sentence]


def _of_sections(rows: Sequence[Row], sections: Sequence[tuple[int, ...]]) -> list[Key]:
    """Say which colour a section has, if there are several."""
    if len(sections) == 1:
        return []
    first: dict[tuple[int, ...], Row] = {row.level: row for row in reversed(rows)}
    return [Key(cells.section(first[level]), series) for series, level in enumerate(sections)]


def _of_looks(states: Collection[str]) -> list[Key]:
    """Say what the looks of dots mean, if there are several."""
    grey = [state for state in (BEHIND, ALONE) if state in states]
    looks = [
        *([Key("on the front", None)] if FRONT in states else []),
        *([Key(NOISE, None, "hollow")] if NOISE in states else []),
        *([Key(" or ".join(grey), None, "faint")] if grey else []),
    ]
    return looks if len(looks) > 1 else []


def missing(board: Board, cost: str) -> str:
    """Say why a board has no figure of a cost."""
    if cost == "seconds" and len(board.hardware) > 1:
        return (
            f"Seconds on different machines do not compare ({'; '.join(board.hardware)}). Choose "
            "another cost, or give RESULTS of one machine"
        )
    return f"No row has a value for {cells.words(cost)}"

"""Accuracy against the density of the network that predicts."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from debiasbench.leaderboard import cells
from debiasbench.leaderboard.figures.axes import accuracy_axis, density_axis
from debiasbench.leaderboard.figures.figure import Dots, Figure, Level, Line, Point
from debiasbench.leaderboard.figures.words import (
    accuracies,
    incomplete,
    intervals,
    numbers,
    shown,
    title,
)
from debiasbench.leaderboard.frame import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.figures.figure import Mark
    from debiasbench.leaderboard.row import Row

NAMES = ("density", "sparsity")  # of options, after the last dot
BANDS, NAMED = 4, 6  # dense rows with a band, and with a name; more of them hide each other


def density(board: Board) -> Figure | None:
    """Return the accuracy of all rows against their density, None if all networks are dense.

    The sparse rows of a method that differ in nothing else make a line. Dense rows are horizontal
    lines; if they are many, only the best of each section and the baseline of the board have
    names. The bands are the 95 % intervals of the rows.
    """
    rows = shown(board)
    dense = [row for row in rows if _is_dense(row)]
    sparse = [row for row in rows if row.costs["density"] > 0 and not _is_dense(row)]
    if not sparse:
        return None
    marks: list[Mark] = []
    for name, of in _series(sparse):
        points = [_point(name, row) for row in sorted(of, key=lambda r: r.costs["density"])]
        marks.append(
            Line(name, tuple(points), len(marks))
            if len(points) > 1
            else Dots((replace(points[0], name=name),), len(marks))
        )
    named = _named(dense, board)
    bands = len(named) <= BANDS
    marks += [_level(row, len(marks) + i, band=bands) for i, row in enumerate(named)]
    marks += [_level(row, None, band=False) for row in dense if row not in named]
    values = [row.mean for row in dense]
    for row in [*sparse, *(named if bands else ())]:
        values += [row.mean, row.interval.low, row.interval.high]
    return Figure(
        title=title(board, f"{accuracies(board)} against density"),
        x=density_axis(
            "density (part of the weights that is kept)", [r.costs["density"] for r in sparse]
        ),
        y=accuracy_axis(f"{cells.words(board.metric)} accuracy (%)", values),
        marks=tuple(marks),
        notes=(
            f"Mean over seeds, {cells.epoch(board.rule)}, against the density of the network that "
            "predicts, on a logarithmic axis.",
            *_of_lines(sparse, dense, named, bands),
            *incomplete(board, "density"),
        ),
    )


def _of_lines(
    sparse: Sequence[Row], dense: Sequence[Row], named: Sequence[Row], bands: bool
) -> list[str]:
    """Say what the horizontal lines and the bands are."""
    sentences = ["Horizontal lines: dense networks."] if dense else []
    if more := len(dense) - len(named):
        sentences.append(
            f"Lines with names are the best of each section, {more} more lines are thin and grey."
        )
    which = "Bands and bars" if bands or not dense else "Bands and bars, for sparse networks only"
    return [*sentences, f"{which}: {intervals([*sparse, *(named if bands else ())])}"]


def _named(dense: Sequence[Row], board: Board) -> list[Row]:
    """Return all dense rows if they are few, otherwise the baseline and the best of each section.

    The rows of a board are sorted by section, then best first.
    """
    if len(dense) <= NAMED:
        return list(dense)
    best: dict[tuple[int, ...], Row] = {}
    for row in dense:
        best.setdefault(row.level, row)
    return [row for row in dense if row is best[row.level] or row.name == board.baseline]


def _level(row: Row, series: int | None, *, band: bool) -> Level:
    low, high = row.interval.low, row.interval.high
    text = f"{row.name}, dense: {numbers(row)}."
    name = "" if series is None else row.name
    return Level(name, row.mean, low, high, series, text, band)


def _is_dense(row: Row) -> bool:
    return row.costs["density"] >= 1


def _point(name: str, row: Row) -> Point:
    at = row.costs["density"]
    text = f"{name} at density {at:.4g}: {numbers(row)}."
    return Point(at, row.mean, row.interval.low, row.interval.high, text)


def _series(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return the name and the rows of each line: equal but for what sets the density."""
    methods: dict[str, list[Row]] = {}
    for row in rows:
        methods.setdefault(row.method, []).append(row)
    series = []
    for method, of in methods.items():
        sets = _sets_density(of)
        lines: dict[str, list[Row]] = {}
        for row in of:
            others = {name: value for name, value in row.options.items() if name not in sets}
            same = [others, row.training, row.train, row.val, row.made_by, row.revisions]
            lines.setdefault(json.dumps(same, sort_keys=True), []).append(row)
        for line in lines.values():
            setting = _without(line[0], sets)
            name = f"{method} ({setting})" if setting and len(lines) > 1 else method
            series.append((name, line))
    return series


def _sets_density(rows: Sequence[Row]) -> set[str]:
    """Return the options of a method that set the density.

    Those with a name of `NAMES`, if their values differ; otherwise those whose values and
    densities belong together one by one.
    """
    values: dict[str, dict[str, set[float]]] = {}
    for row in rows:
        about = round(math.log(row.costs["density"]), 1)
        for name, value in row.options.items():
            values.setdefault(name, {}).setdefault(json.dumps(value), set()).add(about)
    differing = {name: of for name, of in values.items() if len(of) > 1}
    if named := {name for name in differing if name.rpartition(".")[2] in NAMES}:
        return named
    return {
        name
        for name, of in differing.items()
        if all(len(densities) == 1 for densities in of.values())
        and len(set.union(*of.values())) == len(of)
    }


def _without(row: Row, names: set[str]) -> str:
    """Return the setting of a row without some options."""
    setting = row.setting
    for name in names & row.options.keys():
        own = re.escape(f"{name}={plain(row.options[name])}")
        setting = re.sub(rf"(^|, ){own}(?=, |$)", "", setting)
    return setting.removeprefix(", ")

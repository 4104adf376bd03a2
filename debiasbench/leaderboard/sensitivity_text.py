"""How much depends on choices of the evaluation, as tables of text, and as CSV and JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from debiasbench.leaderboard import cells, flat
from debiasbench.leaderboard.grid import Cell, Grid
from debiasbench.leaderboard.protocol_text import labels, moved, seen
from debiasbench.leaderboard.render import heading

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from debiasbench.leaderboard.protocol import Line
    from debiasbench.leaderboard.sensitivity import Sensitivity, View

KINDS = {
    "own": "own",
    "rule": "selection rule",
    "metric": "metric",
    "validation": "validation split",
}


def grids(found: Sensitivity) -> list[Grid]:
    """Lay out who is best in each view, the points, and what selection adds to each gain.

    Without two lines in one section, nobody is best; without a baseline, there are no gains.
    """
    first = [_agreements(found)] if found.agreements else []
    return [*first, _points(found), *([_gains(found)] if found.gains else [])]


def _title(found: Sensitivity, what: str) -> str:
    return heading(f"{found.own.dataset} · {found.own.model}: {what}")


def _own(found: Sensitivity) -> str:
    board = found.own
    return f"{cells.words(board.metric)} accuracy {cells.epoch(board.rule)}"


def _agreements(found: Sensitivity) -> Grid:
    by_name = {view.name: view for view in found.views}
    return Grid(
        _title(found, "who is best in which view"),
        ["view", "what differs", "best", "Kendall's tau", "lines", "largest rank change", "turned"],
        [
            [
                Cell(of.rule),
                Cell(KINDS[by_name[of.rule].choice]),
                Cell(", ".join(of.best)),
                Cell("" if of.rule == found.own.rule else _tau(of.tau)),
                Cell(str(of.lines)),
                Cell(moved(of)),
                Cell("" if of.rule == found.own.rule else str(of.reversed_)),
            ]
            for of in found.agreements
        ],
        [seen(of.level) for of in found.agreements],
        [
            f"The own view is {_own(found)}; every other one differs from it in one choice. Best: "
            "the best of the section, and those that cannot be distinguished from it. Tau-b of the "
            "order against the own view: 1 for the same order, -1 for the reverse. Turned: pairs "
            "of which one is significantly better in the one view and significantly worse in the "
            "other."
        ],
    )


def _tau(value: float) -> str:
    return "—" if math.isnan(value) else f"{value:.2f}"


def _points(found: Sensitivity) -> Grid:
    return Grid(
        _title(found, "accuracy in each view"),
        ["method", *(view.name for view in found.views)],
        [
            [
                Cell(line.name),
                *(Cell(_point(line, view), view.name in line.best) for view in found.views),
            ]
            for line in found.lines
        ],
        [seen(line.level) for line in found.lines],
        [
            "In percent: mean ± standard deviation over seeds; in brackets the rank in its section "
            f"among the lines that are compared in the view. The own view is {_own(found)}. "
            f"{cells.strong(found.own.metric)}"
        ],
    )


def _point(line: Line, view: View) -> str:
    if view.name not in line.rows:
        return "—"
    text = cells.mean(line.rows[view.name])
    return f"{text} ({line.ranks[view.name]:g})" if view.name in line.ranks else text


def _gains(found: Sensitivity) -> Grid:
    return Grid(
        _title(found, f"gain over {found.baseline}"),
        ["method", found.own.rule, "after the last epoch", "due to selection"],
        [
            [
                Cell(gain.name),
                Cell(cells.points(gain.selected)),
                Cell(cells.points(gain.last)),
                Cell(cells.signed(gain.of_selection)),
            ]
            for gain in found.gains
        ],
        [f"Baseline: {found.baseline}"] * len(found.gains),
        [
            "Points of the line minus points of the baseline, paired by seed and test sample (95 % "
            "interval). Due to selection: the gain at the selected epoch minus the gain after the "
            "last one."
        ],
    )


def as_csv(found: Sequence[Sensitivity]) -> str:
    """Write a row for each line and view."""
    return flat.lines([row for one in found for row in _rows(one)])


def as_json(found: Sequence[Sensitivity]) -> str:
    """Write a list of data sets, each with its views, lines, agreements and gains."""
    return flat.text(
        [
            {
                "dataset": one.own.dataset,
                "model": one.own.model,
                "views": [{"name": v.name, "differs_in": v.choice} for v in one.views],
                "lines": _rows(one),
                "agreements": [
                    {
                        **labels(of.level),
                        "view": of.rule,
                        "best": of.best,
                        "lines": of.lines,
                        "tau": flat.blank(of.tau),
                        "turned": of.reversed_,
                    }
                    for of in one.agreements
                ],
                "baseline": one.baseline,
                "gains": [
                    {
                        "name": gain.name,
                        **flat.difference(gain.selected, "selected"),
                        **flat.difference(gain.last, "last"),
                        "of_selection": flat.blank(gain.of_selection),
                    }
                    for gain in one.gains
                ],
            }
            for one in found
        ]
    )


def _rows(found: Sensitivity) -> list[dict[str, object]]:
    made: list[dict[str, object]] = []
    for line in found.lines:
        for view in found.views:
            if (row := line.rows.get(view.name)) is not None:
                made.append(
                    {
                        "dataset": found.own.dataset,
                        "model": found.own.model,
                        **labels(line.level),
                        "name": line.name,
                        "view": view.name,
                        "metric": view.board.metric,
                        "select": view.board.rule,
                        "mean": flat.blank(row.mean),
                        "deviation": flat.blank(row.deviation),
                        "low": flat.blank(row.interval.low),
                        "high": flat.blank(row.interval.high),
                        "rank": line.ranks.get(view.name),
                        "best": view.name in line.best,
                        "seeds": " ".join(map(str, row.values)),
                    }
                )
    return made


FLAT: dict[str, Callable[[Sequence[Sensitivity]], str]] = {"csv": as_csv, "json": as_json}
"""Format without a layout -> the function that writes sensitivities in it."""

"""From records to one figure of one board, with an error for a figure that cannot be made."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError, UnknownNameError
from debiasbench.common.wording import listed
from debiasbench.leaderboard.board import boards
from debiasbench.leaderboard.cells import words
from debiasbench.leaderboard.figures.density import density
from debiasbench.leaderboard.figures.groups import groups
from debiasbench.leaderboard.figures.pareto import PARETO, missing, pareto
from debiasbench.leaderboard.figures.ranks import ranks
from debiasbench.leaderboard.gather import gather
from debiasbench.leaderboard.row import last_of_each_seed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.figures.figure import Figure
    from debiasbench.leaderboard.row import Row
    from debiasbench.records.record import Record

KINDS = ("density", "pareto", "groups", "ranks")
COST = "inference_flops"  # of a Pareto figure, unless another one is chosen


def make(
    places: Iterable[Path],
    kind: str,
    *,
    dataset: str | None = None,
    metric: str | None = None,
    select: str | None = None,
    baseline: str | None = None,
    cost: str | None = None,
    methods: Sequence[str] = (),
    index: bool = True,
) -> tuple[Figure, list[str]]:
    """Make one of `KINDS` from all records in files and folders.

    Returns the figure and a message for each bad record. `cost`: of `PARETO`. `methods`: names of
    methods or rows; a figure of density has only these, a figure of groups has one row. `index`:
    see `gather`. The other arguments are those of `boards`.

    Raises `OptionError` if there is nothing to draw, or more than one board.
    """
    if kind not in KINDS:
        raise UnknownNameError("figure", kind, KINDS)
    if cost is not None and kind != "pareto":
        raise OptionError(f"--cost cannot be combined with --plot {kind}: it is for pareto")
    if cost is not None and cost not in PARETO:
        raise UnknownNameError("cost", cost, PARETO)
    if methods and kind not in {"density", "groups"}:
        raise OptionError(
            f"--method cannot be combined with --plot {kind}, in which all rows are compared"
        )
    gathered = gather(places, select, index=index)
    board = _one(
        boards(
            gathered.records,
            dataset=dataset,
            metric=metric,
            select=select,
            baseline=baseline,
            **gathered.evidence,
        )
    )
    rows = _chosen(board, methods)
    if kind == "density":
        figure = _density(replace(board, rows=rows))
    elif kind == "pareto":
        figure = _pareto(board, cost or COST)
    elif kind == "ranks":
        figure = _ranks(board)
    else:
        figure = _groups(rows, gathered.records, board.rule)
    return figure, gathered.problems


def _one(made: Sequence[Board]) -> Board:
    """Return the only board."""
    if len(made) == 1:
        return made[0]
    names = listed([f"{board.dataset} · {board.model}" for board in made])
    how = (
        "Choose one with --dataset"
        if len({board.dataset.split()[0] for board in made}) > 1
        else "Give only the records of one of them as RESULTS"
    )
    raise OptionError(f"A figure shows one table, and there are {len(made)}: {names}. {how}")


def _chosen(board: Board, methods: Sequence[str]) -> list[Row]:
    """Return the rows of some methods, or of that name; all rows without any."""
    names = {row.name for row in board.rows} | {row.method for row in board.rows}
    for method in methods:
        if method not in names:
            raise UnknownNameError("method", method, names)
    if not methods:
        return board.rows
    return [row for row in board.rows if row.name in methods or row.method in methods]


def _density(board: Board) -> Figure:
    if (figure := density(board)) is None:
        raise OptionError(
            f"No row of {board.dataset} has a density below 1, so there is no accuracy against "
            "density. Train sparse networks, for example with --sparse or the method rest"
        )
    return figure


def _pareto(board: Board, cost: str) -> Figure:
    if (figure := pareto(board, cost)) is None:
        raise OptionError(missing(board, cost))
    return figure


def _ranks(board: Board) -> Figure:
    if (figure := ranks(board)) is None:
        raise OptionError(
            f"No row of {board.dataset} has a rank by {words(board.metric)} accuracy: ranks need "
            "two rows of one section with two seeds each, without failed runs, and a test split "
            "that can judge the metric"
        )
    return figure


def _groups(rows: Sequence[Row], records: Sequence[Record], rule: str) -> Figure:
    if len(rows) > 1:
        raise OptionError(
            "A figure of groups shows one row. Choose it with --method: "
            f"{listed([row.name for row in rows])}"
        )
    known = {record.id: record for record in records}
    own = last_of_each_seed(known[name] for name in rows[0].records)
    figure = groups(rows[0].name, own, rule)
    if figure is None:
        raise OptionError(f"{rows[0].name} has no result with {rule}")
    return figure

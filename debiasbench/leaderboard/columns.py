"""The columns of a table: their names on the command line, headings, cells and order of rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError, UnknownNameError
from debiasbench.leaderboard import cells
from debiasbench.leaderboard.row import SIDE_METRICS, mean
from debiasbench.records.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.row import Row


@dataclass(frozen=True)
class Column:
    """A column of a table.

    `heading`, `text`: for a board, and for one of its rows. `rank`: what rows are sorted by,
    ascending, NaN last. `strong`: whether the cell of a marked row is strong.
    """

    name: str
    heading: Callable[[Board], str]
    text: Callable[[Row, Board], str]
    rank: Callable[[Row, Board], float]
    strong: bool = False


def _constant(heading: str) -> Callable[[Board], str]:
    return lambda _board: heading


def _metric(name: str) -> Column:
    return Column(
        name,
        _constant(f"{cells.words(name)} %"),
        lambda row, board: cells.flagged(
            cells.percent(accuracy(row, board, name)), name, board.incomplete, row
        ),
        lambda row, board: -accuracy(row, board, name),
    )


def _cost(name: str, heading: str) -> Column:
    key = cells.COSTS[heading][0]
    return Column(
        name,
        _constant(heading),
        lambda row, _board: cells.cost(heading, [row]),
        lambda row, _board: row.costs.get(key, math.nan),
    )


def accuracy(row: Row, board: Board, metric: str) -> float:
    """Return the mean over seeds of any metric."""
    return row.mean if metric == board.metric else row.side[metric]


COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        Column(
            "method",
            _constant("method"),
            lambda row, _board: cells.trusted(row),
            lambda _row, _board: 0.0,  # equal, so the name decides
            strong=True,
        ),
        Column(
            "accuracy",
            lambda board: f"{cells.words(board.metric)} %",
            lambda row, board: cells.flagged(cells.mean(row), board.metric, board.incomplete, row),
            lambda row, _board: -row.mean,
            strong=True,
        ),
        Column(
            "interval",
            _constant("95 % interval"),
            lambda row, _board: cells.bounds(row),
            lambda row, _board: -row.interval.low,
        ),
        Column(
            "rank",
            _constant("rank"),
            lambda row, _board: cells.rank(row),
            lambda row, _board: math.nan if row.rank is None else sum(row.rank[:2]),
        ),
        Column(
            "seeds",
            _constant("seeds"),
            lambda row, _board: cells.seeds(row),
            lambda row, _board: -len(row.values),
        ),
        Column(
            "difference",
            lambda board: f"minus {board.baseline}, points",
            lambda row, _board: cells.difference(row.difference),
            lambda row, _board: -row.difference.mean,
        ),
        *(_metric(name) for name in METRICS),
        _cost("density", "density"),
        _cost("parameters", "parameters"),
        _cost("inference_flops", "MFLOPs to predict"),
        _cost("training_flops", "TFLOPs to train"),
        _cost("seconds", "seconds"),
        _cost("search_flops", "TFLOPs to search"),
        _cost("search_seconds", "seconds to search"),
    )
}
"""Name, as for --columns and --sort -> column."""


def _inferred(name: str, heading: str) -> Column:
    return Column(
        name,
        _constant(heading),
        lambda row, _board: cells.summary(row.inferred[name]),
        lambda row, _board: -mean(row.inferred[name]),
    )


def _inferring(name: str, heading: str, like: str) -> Column:
    return Column(
        name,
        _constant(heading),
        lambda row, _board: cells.measured(row.inferred[name], like),
        lambda row, _board: mean(row.inferred[name]),
    )


PANEL: dict[str, Column] = {
    column.name: column
    for column in (
        COLUMNS["method"],
        COLUMNS["seeds"],
        _inferred("conflict_recall", "conflict recall %"),
        _inferred("conflict_precision", "conflict precision %"),
        _inferred("worst_group_recall", "worst group recall %"),
        _inferred("auc", "AUC %"),
        _inferring("infer_flops", "TFLOPs to infer", "TFLOPs to train"),
        _inferring("infer_seconds", "seconds to infer", "seconds"),
        COLUMNS["training_flops"],
        COLUMNS["seconds"],
    )
}
"""The columns of the panel of groups: name -> column."""

PANELS = ("groups",)
PANEL_RULE = "last"  # reads no label, so that the sections name only what methods declare

_SIDE = ("interval", "seeds", "difference", "rank")
_COSTS = ("density", "parameters", "inference_flops", "training_flops", "seconds")
SEARCH = ("search_flops", "search_seconds")  # of tuned rows
WIDE = ("method", "accuracy", *_SIDE, *SIDE_METRICS, *_COSTS, *SEARCH)
# those that fit a page
NARROW = (
    *("method", "accuracy", "interval", "seeds", "difference", *SIDE_METRICS, "density"),
    "search_flops",
)


def chosen(words: str, known: Mapping[str, Column] = COLUMNS) -> tuple[str, ...]:
    """Read the names of columns, separated by commas; method is always the first.

    `known`: the columns that there are.

    Raises `UnknownNameError` for a name that is no column, and `OptionError` for one given twice.
    """
    names = [name.strip() for name in words.split(",")]
    for name in names:
        if names.count(_column(name, known).name) > 1:
            raise OptionError(f"--columns {words} names the column {name} twice")
    return "method", *(name for name in names if name != "method")


def shown(names: Sequence[str] | None, board: Board, default: Sequence[str]) -> list[Column]:
    """Return the columns of a board; of the default ones, those that add something."""
    useless = {board.metric} if names is None else set()
    if board.baseline is None:
        useless.add("difference")
    if names is None and not any(row.found_by for row in board.rows):
        useless.update(SEARCH)
    return [COLUMNS[name] for name in names or default if name not in useless]


def ordered(board: Board, name: str, known: Mapping[str, Column] = COLUMNS) -> Board:
    """Sort the rows of each section by a column, best first; NaN is last.

    Raises `UnknownNameError` for a name that is no column.
    """
    column = _column(name, known)

    def place(row: Row) -> tuple[object, ...]:
        rank = column.rank(row, board)
        return row.level, math.isnan(rank), 0.0 if math.isnan(rank) else rank, row.name

    return replace(board, rows=sorted(board.rows, key=place))


def _column(name: str, known: Mapping[str, Column]) -> Column:
    if name not in known:
        raise UnknownNameError("column", name, known)
    return known[name]

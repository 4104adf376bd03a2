"""Boards as CSV and JSON: full numbers, and the ids of the records behind each row."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from debiasbench.common.wording import printable
from debiasbench.leaderboard.frame import COSTS
from debiasbench.records.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.row import Difference, Row

SEARCH_COSTS = ("search_flops", "search_seconds")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBERS = re.compile(r"(-?\d+ ?)+")  # seeds may be negative


def as_csv(boards: Sequence[Board]) -> str:
    """Write a line for each row; every board has the same columns."""
    return lines([_flat(board, row) for board in boards for row in board.rows])


def lines(rows: Sequence[Mapping[str, object]]) -> str:
    """Write rows of the same columns as CSV."""
    out = io.StringIO()
    names = list(rows[0]) if rows else []
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(
        [_cell(value) if isinstance(value, str) else value for value in map(row.get, names)]
        for row in rows
    )
    return out.getvalue()


@lru_cache(maxsize=1 << 14)
def _cell(value: str) -> str:
    """Put an apostrophe before text that a spreadsheet would compute as a formula."""
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA) and not _NUMBERS.fullmatch(text) else text


def as_json(boards: Sequence[Board], *, compact: bool = False) -> str:
    """Write a list of boards, each with its conditions, notes and rows.

    `compact`: on one line, which takes a fraction of the time.
    """
    data = [
        {
            "dataset": board.dataset,
            "model": board.model,
            "metric": board.metric,
            "select": board.rule,
            "conditions": board.conditions,
            "notes": board.notes,
            "incomplete": list(board.incomplete),
            "rows": [_nested(board, row) for row in board.rows],
        }
        for board in boards
    ]
    return text(data, compact=compact)


def text(data: object, *, compact: bool = False) -> str:
    """Write data as JSON."""
    # JSON escapes all other control characters
    return (
        json.dumps(data, indent=None if compact else 1, allow_nan=False).replace("\x7f", "\\u007f")
        + "\n"
    )


def _nested(board: Board, row: Row) -> dict[str, object]:
    return _flat(board, row) | {
        "values": row.values,
        "failed": row.failed,
        "missing": row.missing,
        "options": row.options,
        "training": row.training,
        "records": row.records,
    }


def _flat(board: Board, row: Row) -> dict[str, object]:
    side = {**row.side, board.metric: row.mean}
    return {
        "dataset": board.dataset,
        "model": board.model,
        "metric": board.metric,
        "select": board.rule,
        "train_labels": row.train,
        "val_use": row.val,
        "method": row.method,
        "setting": row.setting,
        "tuning": row.tuning_name,
        "mean": blank(row.mean),
        "deviation": blank(row.deviation),
        "low": blank(row.interval.low),
        "high": blank(row.interval.high),
        "interval_over": row.interval.basis,
        "half_of_seeds": blank(row.interval.seeds),
        "half_of_samples": blank(row.interval.samples),
        "rank_low": row.rank[0] if row.rank else None,
        "rank_high": row.rank[1] if row.rank else None,
        "ranked": row.rank[2] if row.rank else None,
        "worst_group_low": blank(row.worst.low),
        "worst_group_high": blank(row.worst.high),
        "worst_group_floor": blank(row.floor),
        "baseline": board.baseline,
        **difference(row.difference),
        "seeds": " ".join(map(str, row.values)),
        "failed_seeds": " ".join(map(str, row.failed)),
        "missing_seeds": " ".join(map(str, row.missing)),
        "marked": row.marked,
        "stale": row.stale,
        "trust": row.trust,
        "incomplete": " ".join(board.incomplete),
        **{metric: blank(side.get(metric, math.nan)) for metric in METRICS},
        **{name: blank(row.costs[name]) for name in COSTS},
        **{name: blank(row.costs.get(name, math.nan)) for name in SEARCH_COSTS},
        "options": json.dumps(row.options, sort_keys=True),
        "training": json.dumps(row.training, sort_keys=True),
        "records": " ".join(row.records),
    }


def difference(of: Difference, name: str = "difference") -> dict[str, float | None]:
    """Return the columns of a difference; `name`: with which their names begin."""
    return {
        name: blank(of.mean),
        f"{name}_low": blank(of.low),
        f"{name}_high": blank(of.high),
        f"{name}_p": blank(of.p),
    }


def blank(value: float) -> float | None:
    """Return None for NaN and infinities, which JSON does not have."""
    return value if math.isfinite(value) else None

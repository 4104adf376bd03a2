"""The panel of groups: what methods inferred of the training samples, against the truth.

Records hold the counts, which were made after training; no method sees them.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError
from debiasbench.leaderboard import cells, flat
from debiasbench.leaderboard.board import REPEATED, Board, boards, of_dataset
from debiasbench.leaderboard.columns import PANEL, PANEL_RULE, ordered
from debiasbench.leaderboard.frame import COSTS
from debiasbench.leaderboard.grid import Cell, Grid
from debiasbench.leaderboard.notes import conditions, listed, of_runs
from debiasbench.leaderboard.render import heading
from debiasbench.leaderboard.row import Row, deviation, mean
from debiasbench.records.inference import NUMBERS, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from debiasbench.records.record import Record

SPENT = {"infer_flops": "flops", "infer_seconds": "seconds"}  # column -> what stages hold
NARROW = tuple(name for name in PANEL if name not in {"infer_seconds", "training_flops", "seconds"})
MEANING = (
    "What methods inferred of the training samples, against the true groups: mean ± standard "
    "deviation over seeds. Conflict recall and precision: of the samples that a method takes for "
    "bias-conflicting; if it inferred pseudo-groups only, of all samples outside the largest "
    "pseudo-group of their class. Worst group recall: the smallest part of any true group that "
    "was recovered. AUC: how often a conflicting sample has a larger score than an aligned one. "
    "To infer: the training stages that had ended when the method had inferred it."
)


def panels(
    records: Sequence[Record], *, dataset: str | None = None, unverified: Collection[str] = ()
) -> list[Board]:
    """Make a board of the methods that infer for each data set and model; see `boards`.

    Its rows hold the numbers of the panel by seed. They are sorted by supervision, then by AUC.
    Raises `RecordError` if no record holds anything that was inferred, and `UnknownNameError`.
    """
    if dataset is not None:
        records = of_dataset(records, dataset)
    # a method that infers, with its failed runs, which are named
    inferring = {_method(record) for record in records if record.inference is not None}
    of = {record.id: record for record in records if _method(record) in inferring}
    made = boards(list(of.values()), metric="average", select=PANEL_RULE)
    judged = (_judged(board, of, unverified) for board in made)
    shown = [ordered(board, "auc", PANEL) for board in judged if board.rows]
    if not shown:
        raise RecordError(
            "No record here holds anything that a method inferred of the training samples. Methods "
            "declare it with lab.inferred; records of versions without it must be made again"
        )
    return shown


def _method(record: Record) -> tuple[str, str]:
    return record.spec.dataset.name, record.spec.method.name


def _judged(board: Board, of: Mapping[str, Record], unverified: Collection[str]) -> Board:
    """Replace accuracies by the numbers of the panel; leave out rows without any."""
    rows = [_row(row, [of[name] for name in row.records]) for row in board.rows]
    rows = [row for row in rows if row.values]
    shown = [of[name] for row in rows for name in row.records]
    if not shown:
        return replace(board, rows=[])
    return replace(
        board,
        rows=rows,
        conditions=conditions(rows, shown),
        notes=[
            *of_runs(rows, shown, unverified),
            *_undefined(rows),
            *(note for note in board.notes if note == REPEATED),
        ],
    )


def _undefined(rows: Sequence[Row]) -> list[str]:
    """Name the seeds without a number that other seeds of the row have."""
    sentences = []
    for row in rows:
        for name in NUMBERS:
            absent = row.values.keys() - row.inferred[name].keys()
            if absent and row.inferred[name]:
                seeds = f"{'seed' if len(absent) == 1 else 'seeds'} {listed(absent)}"
                sentences.append(f"{row.name}: {cells.words(name)} is undefined for {seeds}.")
    return sentences


def _row(row: Row, records: Sequence[Record]) -> Row:
    numbers: dict[str, dict[int, float]] = {name: {} for name in (*NUMBERS, *SPENT)}
    missing: dict[int, str] = {}
    seeds = []
    for record in records:
        seed = record.spec.seed
        if record.inference is None:
            if record.failure is None:
                missing[seed] = "its record holds nothing that was inferred"
            continue
        seeds.append(seed)
        values = judge(record.inference, record.task.splits["train"]) | _spent(record)
        for name, value in values.items():
            if not math.isnan(value):
                numbers[name][seed] = value
    return replace(
        row,
        values=dict.fromkeys(seeds, math.nan),
        missing=missing,
        marked=False,
        inferred=numbers,
    )


def _spent(record: Record) -> dict[str, float]:
    """Return the costs of the stages that had ended when the method had inferred."""
    if record.cost is None or record.inference is None:
        return {}
    before = record.cost.stages[: record.inference.stages]
    return {
        column: math.fsum(_number(stage.get(name)) for stage in before)
        for column, name in SPENT.items()
    }


def _number(value: object) -> float:
    """Return a cost of a stage, of which records hold any values; NaN if it is not known."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else math.nan  # type: ignore[arg-type]


def grid(board: Board, form: str, columns: Sequence[str] | None = None) -> Grid:
    """Lay out a board of `panels`; `columns`: names of `PANEL`, or None for the usual ones."""
    used = [PANEL[name] for name in columns or (NARROW if form == "latex" else PANEL)]
    return Grid(
        heading(f"{board.dataset} · {board.model} · inferred groups"),
        [column.heading(board) for column in used],
        [[Cell(column.text(row, board)) for column in used] for row in board.rows],
        [cells.section(row) for row in board.rows],
        [
            MEANING,
            board.conditions,
            *board.notes,
            *dict.fromkeys(f"{cells.options(row)}." for row in board.rows if row.options),
        ],
    )


def as_csv(boards: Sequence[Board]) -> str:
    """Write a line for each row."""
    return flat.lines([_flat(board, row) for board in boards for row in board.rows])


def as_json(boards: Sequence[Board]) -> str:
    """Write a list of boards, each with its conditions, notes and rows."""
    return flat.text(
        [
            {
                "dataset": board.dataset,
                "model": board.model,
                "conditions": board.conditions,
                "notes": board.notes,
                "rows": [
                    _flat(board, row)
                    | {
                        "values": row.inferred,
                        "failed": row.failed,
                        "missing": row.missing,
                        "options": row.options,
                        "training": row.training,
                        "records": row.records,
                    }
                    for row in board.rows
                ],
            }
            for board in boards
        ]
    )


FLAT: dict[str, Callable[[Sequence[Board]], str]] = {"csv": as_csv, "json": as_json}
"""Format without a layout -> the function that writes panels in it."""


def _flat(board: Board, row: Row) -> dict[str, object]:
    means = {name: flat.blank(mean(values)) for name, values in row.inferred.items()}
    deviations = {
        f"{name}_deviation": flat.blank(deviation(row.inferred[name])) for name in NUMBERS
    }
    return {
        "dataset": board.dataset,
        "model": board.model,
        "train_labels": row.train,
        "val_use": row.val,
        "method": row.method,
        "setting": row.setting,
        "seeds": " ".join(map(str, row.values)),
        "failed_seeds": " ".join(map(str, row.failed)),
        "missing_seeds": " ".join(map(str, row.missing)),
        **means,
        **deviations,
        **{name: flat.blank(row.costs[name]) for name in COSTS},
        "options": json.dumps(row.options, sort_keys=True),
        "training": json.dumps(row.training, sort_keys=True),
        "records": " ".join(row.records),
    }

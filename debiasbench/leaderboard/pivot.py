"""One table over the values of an option: rows are methods, columns are the values."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import RecordError, UnknownNameError
from debiasbench.leaderboard import cells
from debiasbench.leaderboard.board import Board, boards, of_dataset
from debiasbench.leaderboard.frame import plain
from debiasbench.leaderboard.grid import Cell, Grid
from debiasbench.leaderboard.notes import NOISY, made_on, samples, training
from debiasbench.leaderboard.render import heading
from debiasbench.leaderboard.row import Row, with_settings
from debiasbench.leaderboard.tuning import MEANING
from debiasbench.specs.spec import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from debiasbench.leaderboard.standing import Standing
    from debiasbench.leaderboard.tuning import Tuned
    from debiasbench.records.correct import Correct
    from debiasbench.records.record import Record
    from debiasbench.specs.spec import Spec

COSTS = ("density", "TFLOPs to train", "seconds")
PARTS = ("dataset", "model", "sparse")  # what options are written before a dot of


@dataclass(frozen=True)
class Column:
    """A value of the option, and the board of its records."""

    value: Any
    board: Board
    records: list[Record]


@dataclass(frozen=True)
class Line:
    """A method with one setting: a row of each column's board, None where it has none."""

    row: Row  # what the rows share: name, supervision, options
    rows: list[Row | None]

    @property
    def present(self) -> list[Row]:
        """The rows of the columns that have one."""
        return [row for row in self.rows if row is not None]


@dataclass(frozen=True)
class Pivot:
    """Boards that differ in the value of one option only, side by side."""

    option: str
    columns: list[Column]  # values ascending
    lines: list[Line]  # by supervision, complete lines first, then by their mean
    notes: list[str]


def pivots(
    records: Sequence[Record],
    option: str,
    *,
    dataset: str | None = None,
    metric: str | None = None,
    select: str | None = None,
    correct: Mapping[str, Mapping[str, Correct]] | None = None,
    unverified: Collection[str] = (),
    standing: Standing | None = None,
    tuned: Tuned | None = None,
) -> list[Pivot]:
    """Make a pivot for each data set and model; the other arguments are those of `boards`.

    `option` is named as for --set: dataset.NAME, model.NAME, train.NAME, sparse.NAME, or the name
    of an option of the method. Raises `UnknownNameError` if no record has it, and `RecordError` if
    the same options gave different data, so that a value has two boards.
    """
    if dataset is not None:
        records = of_dataset(records, dataset)
    by_value: dict[str, list[Record]] = {}
    for record in records:
        options = _options(record.spec)
        if option in options:
            by_value.setdefault(canonical(options[option]), []).append(record)
    if not by_value:
        known = {name for record in records for name in _options(record.spec)}
        raise UnknownNameError("option", option, known)
    tables: dict[tuple[str, str], list[Column]] = {}
    for members in sorted(by_value.values(), key=lambda group: _rank(group[0], option)):
        value = _options(members[0].spec)[option]
        # without the option, rows and boards of different values have the same names
        rest = {r.id: _apart(r, option) for r in members}
        for board in boards(
            list(rest.values()),
            metric=metric,
            select=select,
            correct=correct,
            unverified=unverified,
            standing=standing,
            tuned=tuned,
        ):
            columns = tables.setdefault((board.dataset, board.model), [])
            if columns and columns[-1].value == value:
                raise RecordError(
                    f"The same options gave different data for {board.dataset} with "
                    f"{option}={plain(value)}: compare the records of one of them"
                )
            shown = [rest[name] for row in board.rows for name in row.records]
            columns.append(Column(value, board, shown))
    others = sorted({r.spec.method.name for r in records if option not in _options(r.spec)})
    left_out = [f"Not shown, without the option {option}: {', '.join(others)}."] if others else []
    return [_pivot(option, tables[name], left_out) for name in sorted(tables)]


def _pivot(option: str, columns: list[Column], left_out: list[str]) -> Pivot:
    by_identity: dict[tuple[str, ...], list[Row | None]] = {}
    for i, column in enumerate(columns):
        for row in column.board.rows:
            on_line = by_identity.setdefault(_identity(row), [None] * len(columns))
            if on_line[i] is None or not row.stale:  # of two revisions of the code, the newer one
                on_line[i] = row
    aligned = list(by_identity.values())
    named = with_settings([next(row for row in rows if row is not None) for rows in aligned])
    lines = [Line(row, rows) for row, rows in zip(named, aligned, strict=True)]
    lines.sort(key=_order)
    values_of: dict[str, list[str]] = {}  # note -> the values whose boards have it
    for column in columns:
        for note in column.board.notes:
            if note.startswith(NOISY) and column.board.metric != "worst_group":
                continue  # of a column that is not shown
            values_of.setdefault(note, []).append(plain(column.value))
    notes = [
        note if len(values) == len(columns) else f"{option}={', '.join(values)}: {note}"
        for note, values in values_of.items()
    ]
    if any(None in line.rows for line in lines):
        notes.append("—: there is no record.")
    return Pivot(option, columns, lines, [*notes, *left_out])


def write(pivot: Pivot, writer: Callable[[Grid], str]) -> str:
    """Write a pivot with everything that one must know to read it, by one of `WRITERS`."""
    return writer(grid(pivot))


def grid(pivot: Pivot) -> Grid:
    """Lay out a pivot with everything that one must know to read it."""
    board = pivot.columns[0].board
    scope, _, name = pivot.option.rpartition(".")
    values = [f"{name} {plain(column.value)}" for column in pivot.columns]
    rows = []
    for line in pivot.lines:
        texts = [Cell(line.row.name)]
        for column, row in zip(pivot.columns, line.rows, strict=True):
            text = "—" if row is None else _cell(row, column.board)
            texts.append(Cell(text, row is not None and row.marked))
        costs = [cells.cost(name, line.present) for name in COSTS]
        rows.append([*texts, *map(Cell, (_seeds(line), *costs))])
    records = [record for column in pivot.columns for record in column.records]
    remarks = [
        f"{cells.words(board.metric).capitalize()} accuracy on the test split in percent: mean ± "
        f"standard deviation over seeds (95 % interval), {cells.epoch(board.rule)}. "
        f"{cells.interval(row for line in pivot.lines for row in line.present)} "
        f"{cells.strong(board.metric)}",
        f"Samples: {samples([column.records[0].task for column in pivot.columns])}. "
        f"{training([line.row for line in pivot.lines])} {made_on(records)}",
        *pivot.notes,
        *([MEANING] if any(line.row.tuning_name for line in pivot.lines) else []),
        *dict.fromkeys(f"{cells.options(line.row)}." for line in pivot.lines if line.row.options),
    ]
    return Grid(
        heading(
            f"{board.dataset} · {board.model} · {cells.words(board.metric)} % by {scope} {name}"
        ),
        ["method", *values, "seeds", *COSTS],
        rows,
        [cells.section(line.row) for line in pivot.lines],
        remarks,
    )


def _cell(row: Row, board: Board) -> str:
    mean = cells.flagged(cells.mean(row), board.metric, board.incomplete, row)
    return mean if math.isnan(row.interval.low) else f"{mean} ({cells.bounds(row)})"


def _seeds(line: Line) -> str:
    return ", ".join(sorted({cells.seeds(row) for row in line.present}))


def _options(spec: Spec) -> dict[str, Any]:
    """Return every option of a spec, named as for --set."""
    options = dict(spec.method.options)
    options |= {f"train.{name}": value for name, value in spec.training.items()}
    for part in PARTS:
        choice: Choice | None = getattr(spec, part)
        if choice is not None:
            options |= {f"{part}.{name}": value for name, value in choice.options.items()}
    return options


def _apart(record: Record, option: str) -> Record:
    """Return a record without an option, and as if its value had not been chosen."""
    made, name = record.provenance, option if "." in option else f"method.{option}"
    if made.chosen is not None:
        made = replace(made, chosen=[one for one in made.chosen if one != name])
    return replace(record, spec=_without(record.spec, option), provenance=made)


def _without(spec: Spec, option: str) -> Spec:
    part, _, name = option.rpartition(".")
    if part == "train":
        return replace(spec, training=_less(spec.training, name))
    if part not in PARTS:  # an option of the method, whatever its name
        part, name = "method", option
    choice: Choice = getattr(spec, part)
    changed: dict[str, Any] = {part: Choice(choice.name, _less(choice.options, name))}
    return replace(spec, **changed)


def _less(options: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != name}


def _identity(row: Row) -> tuple[str, ...]:
    """Return what rows of different columns must share to be on one line."""
    settings = canonical(row.options), canonical(row.training)
    return row.train, row.val, str(row.tuning), row.method, row.made_by, *settings


def _rank(record: Record, option: str) -> tuple[bool, float, str]:
    """Sort numbers by size, and other values as text after them."""
    value = _options(record.spec)[option]
    number = isinstance(value, int | float)
    return not number, float(value) if number else 0.0, str(value)


def _order(line: Line) -> tuple[object, ...]:
    means = [row.mean for row in line.present if row.values]
    mean = sum(means) / len(means) if means else -1.0
    return line.row.level, line.rows.count(None), -mean, line.row.name

"""Boards: which rows may be compared, in which order, and which are the best."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from debiasbench.common.errors import UnknownNameError
from debiasbench.common.names import IMPORTED
from debiasbench.leaderboard.frame import Texts, run_of
from debiasbench.leaderboard.notes import conditions, incomplete_metrics, notes
from debiasbench.leaderboard.row import Row, rows_of
from debiasbench.leaderboard.statistics import indistinguishable, paired_difference
from debiasbench.records.metrics import METRICS
from debiasbench.records.selection import RULES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from debiasbench.records.record import Record

REPEATED = "The same options gave other data elsewhere: see the other table of this name."


@dataclass(frozen=True)
class Board:
    """Rows that may be compared: same data, same model, one metric, one selection rule."""

    dataset: str
    model: str
    metric: str
    rule: str
    baseline: str | None
    conditions: str
    rows: list[Row]  # by supervision, then best first
    notes: list[str]
    incomplete: tuple[str, ...] = ()  # metrics that leave out groups without test samples


def boards(
    records: Sequence[Record],
    *,
    dataset: str | None = None,
    metric: str | None = None,
    select: str | None = None,
    baseline: str | None = None,
    unverified: Collection[str] = (),
) -> list[Board]:
    """Make a board for each data set and model among the records, in order of their names.

    `dataset`: only this data set; the name of an imported one needs no "imported:". `metric`,
    `select`: instead of the data set's own. `baseline`: the name of a row that the others are
    compared with, seed by seed; a board without this row has a note. `unverified`: ids of records
    whose hits could not be compared with predictions, for a note. Each spec must occur once: see
    `distinct`.

    Raises `UnknownNameError`, also for a baseline that no board has.
    """
    for kind, name, known in (("metric", metric, METRICS), ("selection rule", select, RULES)):
        if name is not None and name not in known:
            raise UnknownNameError(kind, name, known)
    if dataset is not None:
        records = of_dataset(records, dataset)
    if not records:
        return []
    groups: dict[tuple[str, str, str], list[Record]] = {}
    texts = Texts()
    for record in records:
        data, model = texts.label(record.spec.dataset), texts.label(record.spec.model)
        groups.setdefault((data, model, record.task.fingerprint), []).append(record)
    made = [
        _board(
            *key[:2],
            groups[key],
            texts,
            metric=metric or groups[key][0].task.metric,
            rule=select or groups[key][0].task.select,
            baseline=baseline,
            unverified=unverified,
        )
        for key in sorted(groups)
    ]
    if baseline is not None and all(board.baseline is None for board in made):
        rows = {row.name for board in made for row in board.rows}
        raise UnknownNameError("baseline", baseline, rows)
    repeated = Counter((b.dataset, b.model) for b in made)
    return [
        replace(b, notes=[*b.notes, REPEATED]) if repeated[b.dataset, b.model] > 1 else b
        for b in made
    ]


def of_dataset(records: Sequence[Record], dataset: str) -> list[Record]:
    """Return the records of a data set; raises `UnknownNameError` if there are none.

    The name of an imported one needs no "imported:".
    """
    names = {r.spec.dataset.name for r in records}
    wanted = dataset if dataset in names else f"{IMPORTED}{dataset}"
    if wanted not in names:
        short = {name.removeprefix(IMPORTED) for name in names}
        raise UnknownNameError("data set", dataset, short)
    return [r for r in records if r.spec.dataset.name == wanted]


def _board(
    dataset: str,
    model: str,
    records: Sequence[Record],
    texts: Texts,
    *,
    metric: str,
    rule: str,
    baseline: str | None,
    unverified: Collection[str],
) -> Board:
    rows = rows_of([run_of(record, rule, texts) for record in records], metric)
    rows.sort(key=lambda r: (r.level, -r.mean if r.values else math.inf, r.name))
    rows = _with_marks(rows)
    limits = notes(rows, records, rule, unverified)
    named = {row.name: row for row in rows}
    if baseline is not None and baseline in named:
        rows = _with_differences(rows, named[baseline])
    elif baseline is not None:
        limits.append(f"There is no row {baseline} here, so there are no differences to it.")
        baseline = None
    return Board(
        dataset=dataset,
        model=model,
        metric=metric,
        rule=rule,
        baseline=baseline,
        conditions=conditions(rows, records),
        rows=rows,
        notes=limits,
        incomplete=tuple(incomplete_metrics(records[0].task)),
    )


def _with_marks(rows: list[Row]) -> list[Row]:
    """Mark the best row of each section and those that a test cannot distinguish from it.

    A row that is the only one of its section with two seeds or more is not marked, because it was
    compared with nothing.
    """
    marked = []
    for level in sorted({row.level for row in rows}):
        section = [row for row in rows if row.level == level]
        marks = indistinguishable([row.values for row in section])
        if sum(len(row.values) >= 2 for row in section) < 2:
            marks = [False] * len(section)
        marked += [replace(row, marked=mark) for row, mark in zip(section, marks, strict=True)]
    return marked


def _with_differences(rows: list[Row], baseline: Row) -> list[Row]:
    return [
        row
        if row is baseline
        else replace(row, difference=paired_difference(row.values, baseline.values))
        for row in rows
    ]

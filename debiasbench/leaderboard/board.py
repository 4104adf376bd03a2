"""Boards: which rows may be compared, in which order, and which are the best."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from debiasbench.common.errors import UnknownNameError
from debiasbench.common.names import IMPORTED
from debiasbench.leaderboard.comparison import Comparison
from debiasbench.leaderboard.frame import Texts, runs_of
from debiasbench.leaderboard.notes import conditions, incomplete_metrics, notes
from debiasbench.leaderboard.row import Row, outdated, rows_of
from debiasbench.leaderboard.samples import Samples
from debiasbench.leaderboard.standing import Standing
from debiasbench.leaderboard.tuning import labelled
from debiasbench.records.metrics import METRICS
from debiasbench.records.selection import RULES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from debiasbench.leaderboard.tuning import Tuned
    from debiasbench.records.correct import Correct
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
    hardware: tuple[str, ...] = ()  # of all records; seconds on different machines do not compare
    comparison: Comparison | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Asked:
    """What a board is of, apart from its records: data set and network, and how they are shown."""

    dataset: str
    model: str
    fingerprint: str
    metric: str
    rule: str
    baseline: str | None


Keep = Callable[[Asked, "Sequence[Record]", Callable[[], Board]], Board]
"""Returns the board of records: one that was made before, or what the function makes."""


def boards(
    records: Sequence[Record],
    *,
    dataset: str | None = None,
    metric: str | None = None,
    select: str | None = None,
    baseline: str | None = None,
    correct: Mapping[str, Mapping[str, Correct]] | None = None,
    unverified: Collection[str] = (),
    standing: Standing | None = None,
    keep: Keep | None = None,
    tuned: Tuned | None = None,
) -> list[Board]:
    """Make a board for each data set and model among the records, in order of their names.

    `dataset`: only this data set; the name of an imported one needs no "imported:". `metric`,
    `select`: instead of the data set's own. `baseline`: the name of a row that the others are
    compared with, seed by seed; a board without this row has a note. `correct`: selection rule ->
    id -> the test samples that the run classified correctly, see `gather`; intervals and tests of
    rows without it are over seeds alone. `unverified`: ids of records whose hits could not be
    compared with predictions, for a note. `standing`: what maintainers state of records. `keep`:
    see `Keep`. `tuned`: which records report winners of searches; None does not tell tuned rows and
    rows with other settings than the defaults apart. Each spec must occur once: see `distinct`.

    Raises `UnknownNameError`, also for a baseline that no board has.
    """
    made = each(
        records,
        dataset=dataset,
        metric=metric,
        select=select,
        baseline=baseline,
        correct=correct,
        unverified=unverified,
        standing=standing,
        keep=keep,
        tuned=tuned,
    )
    return finished(made, baseline)


def each(
    records: Sequence[Record],
    *,
    dataset: str | None = None,
    metric: str | None = None,
    select: str | None = None,
    baseline: str | None = None,
    correct: Mapping[str, Mapping[str, Correct]] | None = None,
    unverified: Collection[str] = (),
    standing: Standing | None = None,
    keep: Keep | None = None,
    tuned: Tuned | None = None,
) -> list[Board]:
    """Return what `boards` does, without comparing the boards with each other; see `finished`."""
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
    made = []
    for key in sorted(groups):
        task = groups[key][0].task
        asked = Asked(*key, metric or task.metric, select or task.select, baseline)
        make = partial(
            _board,
            asked,
            groups[key],
            texts,
            correct=(correct or {}).get(asked.rule, {}),
            unverified=unverified,
            standing=standing or Standing(),
            tuned=tuned,
        )
        made.append(make() if keep is None else keep(asked, groups[key], make))
    return made


def finished(made: Sequence[Board], baseline: str | None) -> list[Board]:
    """Add the notes that boards need beside each other.

    Raises `UnknownNameError` for a baseline that no board has.
    """
    if made and baseline is not None and all(board.baseline is None for board in made):
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
    wanted = full_name(dataset, {r.spec.dataset.name for r in records})
    return [r for r in records if r.spec.dataset.name == wanted]


def full_name(dataset: str, names: Collection[str]) -> str:
    """Return that of the names which stands for a data set; raises `UnknownNameError`."""
    wanted = dataset if dataset in names else f"{IMPORTED}{dataset}"
    if wanted not in names:
        short = {name.removeprefix(IMPORTED) for name in names}
        raise UnknownNameError("data set", dataset, short)
    return wanted


def _board(
    asked: Asked,
    records: Sequence[Record],
    texts: Texts,
    *,
    correct: Mapping[str, Correct],
    unverified: Collection[str],
    standing: Standing,
    tuned: Tuned | None,
) -> Board:
    task, metric, rule, baseline = records[0].task, asked.metric, asked.rule, asked.baseline
    own = {record.id: correct[record.id] for record in records if record.id in correct}
    samples = Samples.common(own, task.splits["test"])
    rows = rows_of(runs_of(records, rule, texts), metric)
    rows = outdated(labelled(rows, records, rule, tuned))
    if samples is not None:
        seeds = {record.id: record.spec.seed for record in records}
        rows = [_with_tables(row, seeds, own, samples) for row in rows]
    comparison = Comparison(metric, samples, task.splits["test"])
    rows = comparison.summarised(standing.stated(rows))
    rows.sort(key=lambda r: (r.level, -r.mean if r.values else math.inf, r.name))
    rows = _compared(rows, comparison)
    limits = [*notes(rows, records, rule, unverified, comparison), *standing.notes(rows)]
    named = {row.name: row for row in rows}
    if baseline is not None and baseline in named:
        rows = _with_differences(rows, named[baseline], comparison)
    elif baseline is not None:
        limits.append(f"There is no row {baseline} here, so there are no differences to it.")
        baseline = None
    return Board(
        dataset=asked.dataset,
        model=asked.model,
        metric=metric,
        rule=rule,
        baseline=baseline,
        conditions=conditions(rows, records),
        rows=rows,
        notes=limits,
        incomplete=tuple(incomplete_metrics(task)),
        hardware=tuple(sorted({record.provenance.hardware for record in records})),
        comparison=comparison,
    )


def _with_tables(
    row: Row, seeds: Mapping[str, int], correct: Mapping[str, Correct], samples: Samples
) -> Row:
    of = {seeds[name]: correct[name] for name in row.records if name in correct}
    known = {seed: one for seed, one in of.items() if seed in row.values}
    return replace(row, tables=samples.tables(known))


def _compared(rows: list[Row], comparison: Comparison) -> list[Row]:
    """Give rows, sorted by section, their marks and ranks."""
    made = []
    for level in dict.fromkeys(row.level for row in rows):
        made += comparison.compared([row for row in rows if row.level == level])
    return made


def _with_differences(rows: list[Row], baseline: Row, comparison: Comparison) -> list[Row]:
    differences = comparison.differences([(row, baseline) for row in rows])
    return [
        row if row is baseline else replace(row, difference=difference)
        for row, difference in zip(rows, differences, strict=True)
    ]

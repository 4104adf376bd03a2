"""From records to rows: what is compared with what, and what must be said beside it."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import UnknownNameError
from debiasbench.leaderboard.frame import COSTS, frame, plain
from debiasbench.leaderboard.statistics import indistinguishable, interval, paired_difference
from debiasbench.records.metrics import METRICS
from debiasbench.records.selection import RULES, USES_GROUPS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from debiasbench.records.record import Provenance, Record, TaskFacts

SIDE_METRICS = ("conflict", "aligned", "worst_group")
# what seeds must share to be averaged
ONE_ROW = (
    "train", "val", "method", "sparse", "made_by", "options", "sparse_options", "training",
)  # fmt: skip
LEVELS = ("none", "conflict", "groups", "select", "fit")  # from least to most seen


@dataclass(frozen=True)
class Row:
    """One method with one setting, over its seeds. Accuracies in [0, 1]."""

    method: str  # and what made it sparse, as "groupdro + rigl"
    setting: str  # what tells it from other rows of the method; empty if there are none
    made_by: str  # the method's distribution and version
    train: str
    val: str
    values: dict[int, float]  # seed -> the board's metric
    interval: tuple[float, float]  # 95 %, of the mean over seeds
    side: dict[str, float]  # means of further metrics
    costs: dict[str, float]  # means of density, parameters, FLOPs, seconds
    failed: dict[int, str]
    missing: dict[int, str]
    options: dict[str, Any]
    training: dict[str, Any]
    records: list[str]  # ids
    marked: bool = False  # best of its section, or not distinguishable from it
    # to the board's baseline over common seeds: mean and 95 % interval
    difference: tuple[float, float, float] = (math.nan, math.nan, math.nan)

    @property
    def name(self) -> str:
        """Method and setting."""
        return f"{self.method} ({self.setting})" if self.setting else self.method

    @property
    def mean(self) -> float:
        """Mean over seeds, NaN without any."""
        return math.fsum(self.values.values()) / len(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds (n - 1), NaN for fewer than two."""
        n = len(self.values)
        if n < 2:
            return math.nan
        return math.sqrt(math.fsum((v - self.mean) ** 2 for v in self.values.values()) / (n - 1))


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

    `dataset`: only this data set's name. `metric`, `select`: instead of the data set's own.
    `baseline`: the name of a row that the others are compared with, seed by seed. `unverified`:
    ids of records whose hits could not be compared with predictions, for a note. Each spec must
    occur once: see `distinct`.
    """
    for kind, name, known in (("metric", metric, METRICS), ("selection rule", select, RULES)):
        if name is not None and name not in known:
            raise UnknownNameError(kind, name, known)
    names = {r.spec.dataset.name for r in records}
    if dataset is not None:
        if dataset not in names:
            raise UnknownNameError("data set among the records", dataset, names)
        records = [r for r in records if r.spec.dataset.name == dataset]
    if not records:
        return []
    by_id = {r.id: r for r in records}
    made = []
    for _, table in frame(records).groupby(["dataset", "model", "data"], sort=True):
        members = [by_id[i] for i in table["id"].unique()]
        task = members[0].task
        rows = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
        made.append(
            _board(
                rows,
                members,
                metric=metric or task.metric,
                rule=select or task.select,
                baseline=baseline,
                unverified=unverified,
            )
        )
    repeated = Counter((b.dataset, b.model) for b in made)
    other = "The same options gave other data elsewhere: see the other table of this name."
    return [
        replace(b, notes=[*b.notes, other]) if repeated[b.dataset, b.model] > 1 else b for b in made
    ]


def distinct(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Keep the first record of each spec; return them and a line for each spec found twice."""
    kept: dict[str, Record] = {}
    problems = []
    for record in records:
        first = kept.setdefault(record.id, record)
        if first is not record:
            same = _came_to(first) == _came_to(record)
            problems.append(
                f"{record.spec.stem} is there twice, with {'equal' if same else 'different'} "
                "results; the first is used. Remove one"
            )
    return list(kept.values()), problems


def _came_to(record: Record) -> tuple[str, dict[str, list[int]]]:
    return record.status, {rule: o.test.hits for rule, o in record.outcomes.items()}


def _board(
    table: list[dict[str, Any]],
    records: Sequence[Record],
    *,
    metric: str,
    rule: str,
    baseline: str | None,
    unverified: Collection[str],
) -> Board:
    variants: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run in table:
        if run["rule"] == rule:
            key = tuple(run[name] for name in ONE_ROW)
            variants.setdefault(key, []).append(run)
    rows = _with_settings([_row(runs, metric) for runs in variants.values()])
    rows.sort(key=lambda r: (_level(r), -r.mean if r.values else math.inf, r.name))
    rows = _with_differences(_with_marks(rows), baseline)
    return Board(
        dataset=table[0]["dataset"],
        model=table[0]["model"],
        metric=metric,
        rule=rule,
        baseline=baseline,
        conditions=_conditions(rows, records),
        rows=rows,
        notes=[*_notes(rows, records, rule), *_not_verified(records, unverified)],
    )


def _row(runs: list[dict[str, Any]], metric: str) -> Row:
    """Make a row of the runs of one method and setting, under one selection rule."""
    runs = sorted(runs, key=lambda run: run["seed"])
    first = runs[0]
    failed = {run["seed"]: run["failure"] for run in runs if isinstance(run["failure"], str)}
    missing = {run["seed"]: run["missing"] for run in runs if isinstance(run["missing"], str)}
    done = [run for run in runs if run["seed"] not in failed | missing]
    undefined = [run["seed"] for run in done if math.isnan(run[metric])]
    missing |= dict.fromkeys(undefined, f"{metric} is undefined on this test split")
    done = [run for run in done if run["seed"] not in missing]
    values = {run["seed"]: run[metric] for run in done}
    return Row(
        method=" + ".join(filter(None, (first["method"], first["sparse"]))),
        setting="",
        made_by=first["made_by"],
        train=first["train"],
        val=first["val"],
        values=values,
        interval=interval(list(values.values())),
        side={m: _mean(done, m) for m in SIDE_METRICS if m != metric},
        costs={c: _mean(done, c) for c in COSTS},
        failed=failed,
        missing=missing,
        options=_options(first),
        training=json.loads(first["training"]),
        records=[run["id"] for run in runs],
    )


def _options(run: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = json.loads(run["options"])
    sparse: dict[str, Any] = json.loads(run["sparse_options"])
    return own | {f"sparse.{name}": value for name, value in sparse.items()}


def _mean(runs: list[dict[str, Any]], column: str) -> float:
    return math.fsum(run[column] for run in runs) / len(runs) if runs else math.nan


def _level(row: Row) -> tuple[int, int]:
    return LEVELS.index(row.train), LEVELS.index(row.val)


def _with_settings(rows: list[Row]) -> list[Row]:
    """Name the options and training settings in which rows of one method differ."""
    named = []
    shared = _common([row.training for row in rows])
    for row in rows:
        namesakes = [r for r in rows if r.method == row.method]
        same = _common([r.options for r in namesakes])
        differing = {k: v for k, v in row.options.items() if k not in same}
        differing |= {f"train.{k}": v for k, v in row.training.items() if k not in shared}
        if len({r.made_by for r in namesakes}) > 1:
            differing["of"] = row.made_by
        setting = ", ".join(f"{k}={plain(v)}" for k, v in sorted(differing.items()))
        named.append(replace(row, setting=setting))
    return named


def _common(settings: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        key: value
        for key, value in settings[0].items()
        if all(key in other and other[key] == value for other in settings)
    }


def _with_marks(rows: list[Row]) -> list[Row]:
    marked = []
    for level in sorted({_level(row) for row in rows}):
        section = [row for row in rows if _level(row) == level]
        marks = indistinguishable([row.values for row in section])
        marked += [replace(row, marked=mark) for row, mark in zip(section, marks, strict=True)]
    return marked


def _with_differences(rows: list[Row], baseline: str | None) -> list[Row]:
    if baseline is None:
        return rows
    named = {row.name: row for row in rows}
    if baseline not in named:
        raise UnknownNameError("baseline among the rows", baseline, named)
    values = named[baseline].values
    return [
        row
        if row.name == baseline
        else replace(row, difference=paired_difference(row.values, values))
        for row in rows
    ]


def _conditions(rows: list[Row], records: Sequence[Record]) -> str:
    shared = _common([row.training for row in rows])
    settings = ", ".join(f"{k}={plain(v)}" for k, v in sorted(shared.items()))
    made = sorted({_made_on(r.provenance) for r in records})
    task = records[0].task
    sizes = ", ".join(
        f"{sum(task.group_counts[name]):,} {name} "
        f"({100 * _conflicting(task, name):.3g} % conflicting)"
        for name in ("train", "val", "test")
    )
    return f"Samples: {sizes}. Training: {settings}. Made on {'; '.join(made)}."


def _made_on(made: Provenance) -> str:
    """Name the machine, torch, and the precision where it is not the usual one."""
    precision = made.arithmetic.get("precision", "fp32")  # there was no other, once
    half = "" if precision == "fp32" else f", {precision}"
    return f"{made.hardware}, torch {made.versions.get('torch', '?')}{half}"


def _notes(rows: list[Row], records: Sequence[Record], rule: str) -> list[str]:
    notes = []
    everywhere = sorted({s for row in rows for s in (*row.values, *row.failed, *row.missing)})
    for row in rows:
        absent = [s for s in everywhere if s not in {*row.values, *row.failed, *row.missing}]
        if absent:
            notes.append(f"{row.name}: no record for seed {', '.join(map(str, absent))}.")
        for seed, why in {**row.failed, **row.missing}.items():
            notes.append(f"{row.name}: seed {seed} does not count: {why}.")
    task = records[0].task
    if rule not in USES_GROUPS | {"last"} and _conflicting(task, "val") > 2 * _conflicting(
        task, "train"
    ):
        notes.append(
            f"{rule} reads no bias labels, but the validation split was balanced with them."
        )
    if single := [row.name for row in rows if len(row.values) == 1]:
        notes.append(f"One seed each, so no interval and no comparison: {', '.join(single)}.")
    made = [r.provenance for r in records]
    for what, found in (
        ("versions of debiasbench", {p.versions.get("debiasbench", "?") for p in made}),
        ("commits of debiasbench", {p.git or "none" for p in made}),
        ("versions of torch", {p.versions.get("torch", "?") for p in made}),
        ("versions of the model", {p.plugins.get("model", "?") for p in made}),
        ("versions of the data set", {p.plugins.get("dataset", "?") for p in made}),
        ("precisions", {p.arithmetic.get("precision", "fp32") for p in made}),
        ("machines, so times do not compare", {p.hardware for p in made}),
    ):
        if len(found) > 1:
            notes.append(f"Made with different {what}: {'; '.join(sorted(found))}.")
    return notes


def _not_verified(records: Sequence[Record], unverified: Collection[str]) -> list[str]:
    """Name the records without predictions by method and seed."""
    seeds: dict[str, list[int]] = {}
    for record in records:
        if record.id in unverified:
            seeds.setdefault(record.spec.method.name, []).append(record.spec.seed)
    if not seeds:
        return []
    named = [f"{name} (seeds {', '.join(map(str, sorted(seeds[name])))})" for name in sorted(seeds)]
    return [f"Not verified, because predictions are missing: {'; '.join(named)}."]


def _conflicting(task: TaskFacts, split: str) -> float:
    """Fraction of a split's samples that conflict."""
    aligned = [flag for row in task.aligned for flag in row]
    counts = task.group_counts[split]
    return sum(n for n, flag in zip(counts, aligned, strict=True) if not flag) / sum(counts)

"""Rows of a table: the runs of one method with one setting, summarised over their seeds."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from debiasbench.common.canonical import canonical
from debiasbench.leaderboard.frame import COSTS, plain
from debiasbench.records.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from debiasbench.records.record import Record
    from debiasbench.specs.spec import Spec

SIDE_METRICS = ("conflict", "aligned", "worst_group")  # those that tables show
ONE_ROW = (  # what runs must share to be averaged over seeds
    "train",
    "val",
    "method",
    "sparse",
    "made_by",
    "options",
    "sparse_options",
    "training",
    "revisions",
)
LEVELS = ("none", "conflict", "groups", "inputs", "select", "fit")  # from least to most
DEFAULT, BY_HAND = 0, 1 << 62  # `Row.tuning` of rows that no search found

Level = tuple[int, int, int]
"""A section: the labels of training and of validation, as places in `LEVELS`, and `Row.tuning`."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of an accuracy; NaN if there is none.

    `seeds`, `samples`: the half width that seeds alone, and test samples alone, would give.
    `basis`: what varies in it: "both", "seeds" where predictions are missing, or "samples" for a
    row of one seed.
    """

    low: float = math.nan
    high: float = math.nan
    seeds: float = math.nan
    samples: float = math.nan
    basis: str = "both"


@dataclass(frozen=True)
class Difference:
    """The mean difference to another row over common seeds, its 95 % interval, and its p."""

    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan


@dataclass(frozen=True)
class Row:
    """One method with one setting, over its seeds. Accuracies are in [0, 1]."""

    method: str  # with the sparse training algorithm, as "groupdro + rigl"
    setting: str  # what differs from other rows of the method; empty if there are none
    made_by: str  # the method's distribution and version
    train: str
    val: str
    values: dict[int, float]  # seed -> the board's metric
    side: dict[str, float]  # means of all other metrics
    costs: dict[str, float]  # means of density, parameters, FLOPs, seconds
    failed: dict[int, str]  # seed -> why its run failed
    missing: dict[int, str]  # seed -> why its run has no value
    options: dict[str, Any]
    training: dict[str, Any]
    records: list[str]  # ids
    revisions: dict[str, int] = field(default_factory=dict)  # of code, only those above 1
    stale: str = ""  # why the row is not compared: newer revisions in the board, or withdrawn
    trust: str = ""  # how far maintainers checked all its records; see `records.trust`
    interval: Interval = Interval()  # of the mean
    worst: Interval = Interval()  # of the accuracy of the worst group
    floor: float = math.nan  # worst group of a classifier with the same accuracy in every group
    marked: bool = False  # best of its section, or not distinguishable from the best
    rank: tuple[int, int, int] | None = None  # lowest, highest, number of ranked rows
    difference: Difference = Difference()  # to the board's baseline
    # seed -> (N,) which test samples are correct, sorted by group; absent without predictions
    tables: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict, compare=False, repr=False)
    # number of the panel of groups -> seed -> value; see `debiasbench.leaderboard.panel`
    inferred: dict[str, dict[int, float]] = field(default_factory=dict)
    tuning: int = DEFAULT  # how its settings were found; else the trials of a search, or BY_HAND
    tuning_name: str = ""  # the same in words; empty if all rows of the board have the defaults
    searched: dict[str, Any] = field(default_factory=dict)  # training settings of a tuned row
    found_by: str = ""  # the search of a tuned row, in words

    @property
    def name(self) -> str:
        """Method and setting."""
        return f"{self.method} ({self.setting})" if self.setting else self.method

    @property
    def level(self) -> Level:
        """The section, as numbers by which rows can be sorted."""
        return LEVELS.index(self.train), LEVELS.index(self.val), self.tuning

    @property
    def mean(self) -> float:
        """Mean over seeds, NaN without any."""
        return mean(self.values)

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds (n - 1), NaN for fewer than two."""
        return deviation(self.values)


def last_of_each_seed(records: Iterable[Record]) -> list[Record]:
    """Return the last record of each seed; a row takes its values from these.

    Under `last`, runs of two revisions of the selection rules are one row.
    """
    return list({record.spec.seed: record for record in records}.values())


def mean(values: Mapping[int, float]) -> float:
    """Return the mean over seeds, NaN without any."""
    return math.fsum(values.values()) / len(values) if values else math.nan


def deviation(values: Mapping[int, float]) -> float:
    """Return the standard deviation over seeds (n - 1), NaN for fewer than two."""
    n, middle = len(values), mean(values)
    if n < 2:
        return math.nan
    return math.sqrt(math.fsum((v - middle) ** 2 for v in values.values()) / (n - 1))


def rows_of(runs: Sequence[dict[str, Any]], metric: str) -> list[Row]:
    """Make a row for each method and setting among runs, without names; see `run_of`."""
    variants: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run in runs:
        variants.setdefault(tuple(run[name] for name in ONE_ROW), []).append(run)
    return [_row(variant, metric) for variant in variants.values()]


def _row(runs: list[dict[str, Any]], metric: str) -> Row:
    # under `last`, runs of two revisions of the rules are one row: the newer one counts
    every = sorted(runs, key=lambda run: (run["seed"], run["rules"]))
    runs = list({run["seed"]: run for run in every}.values())
    first = runs[0]
    failed = {run["seed"]: run["failure"] for run in runs if isinstance(run["failure"], str)}
    missing = {run["seed"]: run["missing"] for run in runs if isinstance(run["missing"], str)}
    done = [run for run in runs if run["seed"] not in failed and run["seed"] not in missing]
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
        side={name: _mean(done, name) for name in METRICS if name != metric},
        costs={name: _mean(done, name) for name in COSTS},
        failed=failed,
        missing=missing,
        options=_options(first),
        training=json.loads(first["training"]),
        records=[run["id"] for run in every],
        revisions=json.loads(first["revisions"]),
    )


def _options(run: dict[str, Any]) -> dict[str, Any]:
    method: dict[str, Any] = json.loads(run["options"])
    sparse: dict[str, Any] = json.loads(run["sparse_options"])
    return method | {f"sparse.{name}": value for name, value in sparse.items()}


def _mean(runs: list[dict[str, Any]], column: str) -> float:
    return math.fsum(run.get(column, math.nan) for run in runs) / len(runs) if runs else math.nan


def outdated(rows: Sequence[Row]) -> list[Row]:
    """Say of each row why it is stale: the board has the method with newer revisions of the code.

    Revisions of the selection rules, the data set and the model count for all rows together.
    """
    last_of_each_seed: dict[tuple[str, str], int] = {}
    for row in rows:
        for part, number in row.revisions.items():
            of = row.method if part in {"method", "sparse"} else ""
            last_of_each_seed[part, of] = max(last_of_each_seed.get((part, of), 1), number)
    return [replace(row, stale=_stale(row, last_of_each_seed)) for row in rows]


def _stale(row: Row, last_of_each_seed: Mapping[tuple[str, str], int]) -> str:
    older = [
        f"{part} {row.revisions.get(part, 1)} instead of {number}"
        for (part, of), number in sorted(last_of_each_seed.items())
        if of in {"", row.method} and row.revisions.get(part, 1) < number
    ]
    return f"revision of {', '.join(older)}" if older else ""


def with_settings(rows: list[Row]) -> list[Row]:
    """Name the options and training settings in which rows of one method differ."""
    named = []
    shared = common([row.training for row in rows])
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row.method, []).append(row)
    same = {name: common([row.options for row in of]) for name, of in by_method.items()}
    makers = {name: {row.made_by for row in of} for name, of in by_method.items()}
    same_code = {name: common([row.revisions for row in of]) for name, of in by_method.items()}
    for row in rows:
        differing = {k: v for k, v in row.options.items() if k not in same[row.method]}
        differing |= {f"train.{k}": v for k, v in row.training.items() if k not in shared}
        if len(makers[row.method]) > 1:
            differing["of"] = row.made_by
        parts = {part for other in by_method[row.method] for part in other.revisions}
        for part in parts:
            if part not in same_code[row.method]:
                differing[f"revision of {part}"] = row.revisions.get(part, 1)
        setting = ", ".join(f"{k}={plain(v)}" for k, v in sorted(differing.items()))
        named.append(replace(row, setting=setting))
    return named


def names_of(specs: Iterable[Spec]) -> list[str]:
    """Return the names that rows of these specs have in one table of their records.

    Names of records that another version of a plugin made also have this version.
    """
    distinct = {canonical(asdict(replace(spec, seed=0))): spec for spec in specs}
    rows = [
        Row(
            method=" + ".join(part.name for part in (spec.method, spec.sparse) if part),
            setting="",
            made_by="",
            train="none",
            val="none",
            values={},
            side={},
            costs={},
            failed={},
            missing={},
            options=spec.method.options
            | {f"sparse.{k}": v for k, v in (spec.sparse.options if spec.sparse else {}).items()},
            training=spec.training,
            records=[],
            revisions={},
        )
        for spec in distinct.values()
    ]
    return [row.name for row in with_settings(rows)]


def common(settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the names and values that all settings share."""
    return {
        key: value
        for key, value in settings[0].items()
        if all(key in other and other[key] == value for other in settings)
    }

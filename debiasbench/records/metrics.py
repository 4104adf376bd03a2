"""Accuracies from the counts in each group: pure functions with values in [0, 1], or NaN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class GroupCounts:
    """Correct and all samples in each group of a split.

    All tables are (C, B), classes by bias values. `hits`: correct samples. `totals`: samples.
    `aligned`: whether the bias goes with the class. `train`: samples in the training split.
    """

    hits: NDArray[np.int64]
    totals: NDArray[np.int64]
    aligned: NDArray[np.bool_]
    train: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        hits: Sequence[int],
        totals: Sequence[int],
        aligned: Sequence[Sequence[bool]],
        train: Sequence[int],
    ) -> GroupCounts:
        """Make the tables from flat lists, (G,), with group = y * num_biases + bias."""
        flags = np.asarray(aligned, dtype=bool)
        shape = flags.shape
        tables = [np.asarray(v, dtype=np.int64).reshape(shape) for v in (hits, totals, train)]
        return cls(tables[0], tables[1], flags, tables[2])

    @cached_property
    def fixed(self) -> _Fixed:
        """What does not depend on the hits, for `accuracies_of`."""
        return _Fixed(self)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(C, B) accuracy per group, NaN for a group without samples."""
        accuracy = np.full(self.hits.shape, np.nan)
        np.divide(self.hits, self.totals, out=accuracy, where=self.totals > 0)
        return accuracy


def average(g: GroupCounts) -> float:
    """Return the accuracy over all samples."""
    return _ratio(g.hits.sum(), g.totals.sum())


def balanced_groups(g: GroupCounts) -> float:
    """Return the mean of the group accuracies; groups without samples do not count."""
    return _mean(g.accuracy)


def unbiased(g: GroupCounts) -> float:
    """Return the accuracy as if all bias values were equally frequent within each class.

    sum_y p(y) mean_b accuracy(y, b). On a bias-balanced split this is the average, which the
    literature calls unbiased accuracy.
    """
    per_class = np.array([_mean(row) for row in g.accuracy])  # (C,)
    samples = g.totals.sum(axis=1)  # (C,)
    present = samples > 0
    return _ratio((per_class[present] * samples[present]).sum(), samples.sum())


def worst_group(g: GroupCounts) -> float:
    """Return the lowest accuracy of any group that has samples."""
    present = g.totals > 0
    return float(g.accuracy[present].min()) if present.any() else float("nan")


def conflict(g: GroupCounts) -> float:
    """Return the accuracy over the bias-conflicting samples."""
    return _ratio(g.hits[~g.aligned].sum(), g.totals[~g.aligned].sum())


def aligned(g: GroupCounts) -> float:
    """Return the accuracy over the bias-aligned samples."""
    return _ratio(g.hits[g.aligned].sum(), g.totals[g.aligned].sum())


def adjusted_average(g: GroupCounts) -> float:
    """Return the mean of group accuracies, weighted by the groups' frequency in training.

    NaN if a group that occurs in training has no sample in the split. The adjusted average of
    Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, ICLR 2020.
    """
    present = g.train > 0
    return _ratio((g.accuracy[present] * g.train[present]).sum(), g.train.sum())


METRICS: dict[str, Callable[[GroupCounts], float]] = {
    "average": average,
    "unbiased": unbiased,
    "balanced_groups": balanced_groups,
    "worst_group": worst_group,
    "conflict": conflict,
    "aligned": aligned,
    "adjusted_average": adjusted_average,
}
"""Name -> metric."""


def weights(g: GroupCounts, metric: str) -> NDArray[np.float64] | None:
    """Return the (C, B) weights with which a metric sums the group accuracies.

    They are 0 for groups without samples, and their sum is 1. None for `worst_group`, which is no
    weighted sum, and where the metric is undefined.
    """
    present = g.totals > 0
    samples = g.totals.astype(np.float64)
    if metric == "average":
        raw = samples
    elif metric == "balanced_groups":
        raw = present.astype(np.float64)
    elif metric == "unbiased":
        biases = np.maximum(present.sum(axis=1, keepdims=True), 1)
        raw = present * samples.sum(axis=1, keepdims=True) / biases
    elif metric == "conflict":
        raw = samples * ~g.aligned
    elif metric == "aligned":
        raw = samples * g.aligned
    elif metric == "adjusted_average" and not (g.train[~present] > 0).any():
        raw = g.train.astype(np.float64)
    else:
        return None
    whole = raw.sum()
    return raw / whole if whole else None


def incomplete(g: GroupCounts) -> list[str]:
    """Name the metrics that leave out groups without samples, which they would have to judge.

    Their values are those of a split without these groups, so they can be too high. The adjusted
    average is undefined instead.
    """
    empty = g.totals == 0
    judged = {
        "unbiased": empty,
        "balanced_groups": empty,
        "worst_group": empty,
        "conflict": empty & ~g.aligned,
        "aligned": empty & g.aligned,
    }
    return [name for name, groups in judged.items() if groups.any()]


def accuracies(g: GroupCounts) -> dict[str, float]:
    """Compute every metric; return them by name."""
    return accuracies_of(g.hits[None], g)[0]


def accuracies_of(hits: NDArray[np.int64], g: GroupCounts) -> list[dict[str, float]]:
    """Compute every metric for each of K tables of hits, (K, C, B), in a split like that of `g`.

    Returns exactly what the functions in `METRICS` do, for all tables at once.
    """
    if not g.fixed.complete:  # each metric has its rule for groups without samples
        counts = [GroupCounts(table, g.totals, g.aligned, g.train) for table in hits]
        return [{name: metric(c) for name, metric in METRICS.items()} for c in counts]
    f = g.fixed
    each = hits / g.totals  # (K, C, B)
    flat = each.reshape(len(hits), -1)  # (K, G)
    right, aligned_right = (hits.reshape(len(hits), -1) @ f.masks).T  # (K,) each
    per_class = np.add.reduce(each, axis=2) / each.shape[2]  # (K, C)
    # contiguous, so that numpy adds the numbers in the same order as for a single table
    seen = np.ascontiguousarray(flat[:, f.present]) * f.train  # (K, groups in training)
    values = {
        "average": _ratios(right, f.total),
        "unbiased": _ratios(np.add.reduce(per_class * f.samples, axis=1), f.total),
        "balanced_groups": _ratios(np.add.reduce(flat, axis=1), flat.shape[1]),
        "worst_group": np.minimum.reduce(flat, axis=1).tolist(),
        "conflict": _ratios(right - aligned_right, f.total - f.total_aligned),
        "aligned": _ratios(aligned_right, f.total_aligned),
        "adjusted_average": _ratios(np.add.reduce(seen, axis=1), f.total_train),
    }
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


class _Fixed:
    """What metrics need of a split and does not depend on the hits."""

    def __init__(self, g: GroupCounts) -> None:
        self.complete = bool(g.totals.all())
        self.samples = g.totals.sum(axis=1)  # (C,)
        self.masks = np.stack([np.ones_like(g.totals), g.aligned]).reshape(2, -1).T  # (G, 2)
        self.total = int(g.totals.sum())
        self.total_aligned = int(g.totals[g.aligned].sum())
        self.total_train = int(g.train.sum())
        self.present = np.flatnonzero(g.train)
        self.train = g.train.ravel()[self.present]


def _ratios(parts: NDArray[Any], whole: int) -> list[float]:
    return [part / whole if whole else float("nan") for part in parts.tolist()]


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")

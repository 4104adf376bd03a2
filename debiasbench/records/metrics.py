"""Accuracies from per-group counts: pure functions, each number in [0, 1] or NaN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class GroupCounts:
    """What a classifier got right in each group of a split.

    All are (C, B), classes by bias values: `hits` correct samples, `totals` samples, `aligned`
    whether the bias goes with the class, `train` samples in the training split.
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
        """Make it from flat group lists, group = y * num_biases + bias."""
        flags = np.asarray(aligned, dtype=bool)
        shape = flags.shape
        tables = [np.asarray(v, dtype=np.int64).reshape(shape) for v in (hits, totals, train)]
        return cls(tables[0], tables[1], flags, tables[2])

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(C, B) accuracy per group, NaN for a group without samples."""
        share = np.full(self.hits.shape, np.nan)
        np.divide(self.hits, self.totals, out=share, where=self.totals > 0)
        return share


def average(g: GroupCounts) -> float:
    """Accuracy over the split as it is."""
    return _ratio(g.hits.sum(), g.totals.sum())


def balanced_groups(g: GroupCounts) -> float:
    """Mean of the group accuracies; groups without samples do not count."""
    return _mean(g.accuracy)


def unbiased(g: GroupCounts) -> float:
    """Accuracy if bias were independent of class: classes as frequent as they are, biases equally.

    sum_y p(y) mean_b accuracy(y, b). On a bias-balanced split this is the plain average, which
    is what the literature calls unbiased accuracy.
    """
    per_class = np.array([_mean(row) for row in g.accuracy])  # (C,)
    share = g.totals.sum(axis=1)  # (C,)
    there = share > 0
    return _ratio((per_class[there] * share[there]).sum(), share.sum())


def worst_group(g: GroupCounts) -> float:
    """Accuracy of the worst group that has samples."""
    there = g.totals > 0
    return float(g.accuracy[there].min()) if there.any() else float("nan")


def conflict(g: GroupCounts) -> float:
    """Accuracy over the bias-conflicting samples."""
    return _ratio(g.hits[~g.aligned].sum(), g.totals[~g.aligned].sum())


def aligned(g: GroupCounts) -> float:
    """Accuracy over the bias-aligned samples."""
    return _ratio(g.hits[g.aligned].sum(), g.totals[g.aligned].sum())


def adjusted_average(g: GroupCounts) -> float:
    """Group accuracies weighted by the groups' frequency in training (Sagawa et al., 2020).

    NaN if a group that occurs in training has no sample here.
    """
    there = g.train > 0
    return _ratio((g.accuracy[there] * g.train[there]).sum(), g.train.sum())


METRICS: dict[str, Callable[[GroupCounts], float]] = {
    f.__name__: f
    for f in (
        average, unbiased, balanced_groups, worst_group, conflict, aligned, adjusted_average,
    )
}  # fmt: skip
"""Every metric by its name."""


def accuracies(g: GroupCounts) -> dict[str, float]:
    """Return every metric by name."""
    return {name: metric(g) for name, metric in METRICS.items()}


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _mean(values: NDArray[np.float64]) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")

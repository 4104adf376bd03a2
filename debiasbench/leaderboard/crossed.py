"""Intervals and tests of accuracies over seeds and test samples together.

All seeds of a method are tested on the same samples, so more seeds do not remove the part of the
error that comes from the samples. A table of S seeds by N samples, in which both are a sample of
something larger, is crossed; the variance of its mean has a part for each of the two, and the half
width of the interval follows from Howe's rule for sums of means with their own degrees of freedom
(Howe, Approximate Confidence Limits on the Mean of X + Y, JASA 1974):

    half^2 = t^2(S - 1) v_seeds + t^2(N - G) v_samples

The group sizes of a test split are fixed, so samples vary within the G groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEAST = -60.0  # logarithm of the smallest p
GRID = 4096  # parts between it and 0
REFINED = 8  # steps within a part, for twelve digits


@dataclass(frozen=True)
class Parts:
    """The mean of a crossed table and the two parts of its variance."""

    mean: float
    v_seeds: float  # of the mean, from seeds and from what seeds and samples do together
    v_samples: float  # of the mean, from samples alone
    seeds: int
    freedom: int  # of the samples: N - G, at least 1

    def halves(self, level: float = 0.05) -> tuple[float, float]:
        """Return the half widths of the interval from seeds alone and from samples alone."""
        from scipy.special import stdtrit  # scipy.stats takes seconds to import

        return (
            -float(stdtrit(self.seeds - 1, level / 2)) * math.sqrt(self.v_seeds),
            -float(stdtrit(self.freedom, level / 2)) * math.sqrt(self.v_samples),
        )

    def interval(self, level: float = 0.05) -> tuple[float, float]:
        """Return the interval of the mean with coverage 1 - `level`; it may leave [0, 1]."""
        half = math.hypot(*self.halves(level))
        return self.mean - half, self.mean + half


@dataclass(frozen=True, eq=False)
class Groups:
    """How the N samples of a split, sorted by group, make an accuracy: sum_g W_g accuracy_g.

    `starts`: (G,) the first sample of each group, none is empty. `sizes`: (G,) samples of each.
    `weights`: (G,) W, whose sum is 1.
    """

    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, sizes: Sequence[int], weights: Sequence[float]) -> Groups:
        """Make the groups from their sizes, none of which is 0, and their weights."""
        n = np.asarray(sizes, dtype=np.int64)
        return cls(np.cumsum(n) - n, n, np.asarray(weights, dtype=np.float64))


def parts(table: NDArray[Any], groups: Groups) -> Parts:
    """Return the mean and the parts of the variance of a table of two seeds or more.

    `table`: (N, S) of 0 and 1, or of -1, 0 and 1 for a difference; samples sorted by group.
    """
    means, v_samples = by_group(table, groups)
    of_seeds = groups.weights @ means  # (S,)
    used = groups.weights != 0
    return Parts(
        mean=float(of_seeds.mean()),
        v_seeds=float(of_seeds.var(ddof=1)) / len(of_seeds),
        v_samples=float((groups.weights**2 * v_samples).sum()),
        seeds=len(of_seeds),
        freedom=max(int(groups.sizes[used].sum()) - int(used.sum()), 1),
    )


def by_group(
    table: NDArray[Any], groups: Groups
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (G, S) the mean of each group and seed, and (G,) the variance from samples alone.

    The latter is that of the mean over seeds; what samples and seeds do together is not in it. With
    one seed it is that of a mean of independent samples.
    """
    x = np.asarray(table, dtype=np.int64)
    seeds, n = x.shape[1], groups.sizes
    sums = np.add.reduceat(x, groups.starts, axis=0)  # (G, S)
    middle = sums.sum(axis=1).astype(np.float64) ** 2 / (n * seeds)
    of_samples = np.add.reduceat(x.sum(axis=1) ** 2, groups.starts) / seeds - middle
    of_seeds = (sums.astype(np.float64) ** 2).sum(axis=1) / n - middle
    whole = np.add.reduceat((x * x).sum(axis=1), groups.starts) - middle
    many = np.maximum(n - 1, 1)
    rest = np.maximum(whole - of_samples - of_seeds, 0.0) / (many * max(seeds - 1, 1))
    v_samples = np.maximum(of_samples / many - rest, 0.0) / (n * seeds)
    # one sample says nothing of the variance: the largest that values of this range can have
    v_samples[n == 1] = 1.0 if x.min(initial=0) < 0 else 0.25
    return sums / n[:, None], v_samples


def p_values(differences: Sequence[Parts]) -> list[float]:
    """Return for each difference the two-sided p: the level at which its interval touches 0."""
    if not differences:
        return []
    mean = np.array([abs(d.mean) for d in differences])
    v_seeds = np.array([d.v_seeds for d in differences])
    v_samples = np.array([d.v_samples for d in differences])
    freedom = np.array([(d.seeds - 1, d.freedom) for d in differences])
    logarithm = np.empty(len(mean))
    for df in np.unique(freedom, axis=0).tolist():
        some = (freedom == df).all(axis=1)
        logarithm[some] = _touching(mean[some], v_seeds[some], v_samples[some], *df)
    p = np.exp(logarithm)
    p[v_seeds + v_samples < 1e-18] = 0.0
    p[mean < 1e-12] = 1.0
    return [float(value) for value in p]


def _touching(
    mean: NDArray[np.float64],
    v_seeds: NDArray[np.float64],
    v_samples: NDArray[np.float64],
    seeds: int,
    samples: int,
) -> NDArray[np.float64]:
    """Return the logarithm of each level at which the interval touches 0, between LEAST and 0.

    `seeds`, `samples`: degrees of freedom. Bisection between the points of a grid, whose quantiles
    are known, is followed by the method of false position (Illinois).
    """
    from scipy.special import stdtrit

    of_seeds, of_samples = _quantiles(seeds), _quantiles(samples)
    low, high = np.zeros(len(mean), dtype=np.int64), np.full(len(mean), GRID)
    while (high - low).max() > 1:
        middle = (low + high) // 2
        half = of_seeds[middle] * v_seeds + of_samples[middle] * v_samples
        wider = half > mean**2  # the interval at this level still contains 0
        low, high = np.where(wider, middle, low), np.where(wider, high, middle)
    x, y = np.stack([low, high]) * (-LEAST / GRID) + LEAST, []
    for at in (low, high):
        y.append(of_seeds[at] * v_seeds + of_samples[at] * v_samples - mean**2)
    (a, b), (at_a, at_b) = x, y
    below = at_a <= 0  # not even the interval at LEAST contains 0
    root, last = a, np.zeros(len(mean))
    for _ in range(REFINED):
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.where(at_a > at_b, a + (b - a) * at_a / (at_a - at_b), a)
        tail = np.exp(root) / 2
        value = stdtrit(seeds, tail) ** 2 * v_seeds + stdtrit(samples, tail) ** 2 * v_samples
        value -= mean**2
        wider = value > 0
        # an end that stays twice counts half, so that the other one moves too
        at_a = np.where(wider, value, np.where(last == -1, at_a / 2, at_a))
        at_b = np.where(wider, np.where(last == 1, at_b / 2, at_b), value)
        a, b, last = np.where(wider, root, a), np.where(wider, b, root), np.where(wider, 1, -1)
    return np.where(below, LEAST, root)


@lru_cache(maxsize=64)
def _quantiles(freedom: int) -> NDArray[np.float64]:
    """Return the squared quantiles of Student's t for each level of a grid of logarithms."""
    from scipy.special import stdtrit

    levels = np.exp(np.arange(GRID + 1) * (-LEAST / GRID) + LEAST)
    squared: NDArray[np.float64] = stdtrit(freedom, levels / 2) ** 2
    return squared


def p_value(difference: Parts) -> float:
    """Return the p of one difference; see `p_values`."""
    return p_values([difference])[0]

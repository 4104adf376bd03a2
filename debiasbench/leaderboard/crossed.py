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

STEPS = 60  # most steps to the logarithm of p, which is between LEAST and 0
LEAST = -60.0
CLOSE = 1e-12  # steps that end the search


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
        return (
            _quantile(self.seeds - 1, level) * math.sqrt(self.v_seeds),
            _quantile(self.freedom, level) * math.sqrt(self.v_samples),
        )

    def interval(self, level: float = 0.05) -> tuple[float, float]:
        """Return the interval of the mean with coverage 1 - `level`; it may leave [0, 1]."""
        half = math.hypot(*self.halves(level))
        return self.mean - half, self.mean + half


@lru_cache(maxsize=1024)
def _quantile(freedom: int, level: float) -> float:
    """Return Student's t for a two-sided interval."""
    from scipy.special import stdtrit

    return -float(stdtrit(freedom, level / 2))


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
    seeds = np.array([d.seeds - 1 for d in differences], dtype=np.float64)
    freedom = np.array([d.freedom for d in differences], dtype=np.float64)
    certain, equal = v_seeds + v_samples < 1e-18, mean < 1e-12
    p = np.where(equal, 1.0, 0.0)
    open_ = np.flatnonzero(~certain & ~equal)
    if open_.size:
        of = (array[open_] for array in (mean, v_seeds, v_samples, seeds, freedom))
        p[open_] = np.exp(_log_p(*of))
    return [float(value) for value in p]


def _log_p(
    mean: NDArray[np.float64],
    v_seeds: NDArray[np.float64],
    v_samples: NDArray[np.float64],
    seeds: NDArray[np.float64],
    freedom: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the logarithm of p: Newton's method between bounds that bisection keeps apart."""
    low, high = np.full(len(mean), LEAST), np.zeros(len(mean))
    found = np.full(len(mean), -3.0)
    left = np.arange(len(mean))
    for _ in range(STEPS):
        u = found[left]
        square_seeds, slope_seeds = _square(seeds[left], u)
        square_samples, slope_samples = _square(freedom[left], u)
        half = square_seeds * v_seeds[left] + square_samples * v_samples[left]
        slope = slope_seeds * v_seeds[left] + slope_samples * v_samples[left]
        wider = half > mean[left] ** 2  # the interval at this level still contains 0
        low[left] = np.where(wider, u, low[left])
        high[left] = np.where(wider, high[left], u)
        with np.errstate(all="ignore"):  # the logarithm is nearly straight
            step = u - np.log(half / mean[left] ** 2) * half / slope
        moved = ~(np.abs(step - u) <= CLOSE)
        # rounding may put the last step outside
        trusted = ~moved | ((low[left] < step) & (step < high[left]))
        found[left] = np.where(trusted, step, (low[left] + high[left]) / 2)
        if not moved.any():
            break
        left = left[moved]
    return found


def _square(
    freedom: NDArray[np.float64], u: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Student's t^2 at the two-sided level exp(u), and its derivative by u."""
    from scipy.special import gammaln, stdtrit  # scipy.stats takes seconds to import

    tail = np.exp(u) / 2
    t = stdtrit(freedom, tail)
    density = np.exp(
        gammaln((freedom + 1) / 2)
        - gammaln(freedom / 2)
        - (freedom + 1) / 2 * np.log1p(t * t / freedom)
    ) / np.sqrt(freedom * math.pi)
    return t * t, 2 * t * tail / density


def p_value(difference: Parts) -> float:
    """Return the p of one difference; see `p_values`."""
    return p_values([difference])[0]

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
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

STEPS = 60  # most steps to the logarithm of p, which is between LEAST and 0
LEAST = -60.0
CLOSE = 1e-12  # steps that end the search
MOST = 1 << 22  # numbers of tables that are in memory together
NOTHING = 1e-18  # a variance that is 0 but for rounding


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

    `table`: (N, S) bool, or a difference of -1, 0 and 1; samples sorted by group.
    """
    return parts_of(*by_group(np.asarray(table).T[None], groups), groups)[0]


def parts_of(
    means: NDArray[np.float64],
    v_samples: NDArray[np.float64],
    v_total: NDArray[np.float64],
    groups: Groups,
) -> list[Parts]:
    """Return the `parts` of R tables, from what `by_group` returned for them."""
    of_seeds = np.einsum("g,rgs->rs", groups.weights, means)
    seeds = of_seeds.shape[1]
    v_seeds = of_seeds.var(axis=1, ddof=1) / seeds
    squared = groups.weights**2
    of_samples = (squared * v_samples).sum(axis=1)
    # seeds that happen to agree on the mean do not make it certain
    none = v_seeds + of_samples < NOTHING
    of_samples[none] = (squared * v_total).sum(axis=1)[none]
    used = groups.weights != 0
    freedom = max(int(groups.sizes[used].sum()) - int(used.sum()), 1)
    columns = of_seeds.mean(axis=1).tolist(), v_seeds.tolist(), of_samples.tolist()
    return [Parts(mean, a, b, seeds, freedom) for mean, a, b in zip(*columns, strict=True)]


def by_group(
    tables: NDArray[Any], groups: Groups
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return (R, G, S) the means of groups, and (R, G) two variances of their mean over seeds.

    `tables`: (R, S, N), bool, or differences of -1, 0 and 1; samples sorted by group. The first
    variance comes from samples alone, without what samples and seeds do together; the second has
    both. With one seed, both are those of independent samples.
    """
    answers = tables.dtype == bool
    x = tables.view(np.int8) if answers else tables
    sums = np.add.reduceat(x, groups.starts, axis=2, dtype=np.int64).transpose(0, 2, 1)
    each = np.add.reduce(x, axis=1, dtype=np.int64)  # (R, N)
    ones = each if answers else np.add.reduce(np.abs(x), axis=1, dtype=np.int64)
    squares = np.add.reduceat(ones, groups.starts, axis=1)
    of_each = np.add.reduceat(each * each, groups.starts, axis=1)
    return of_sums(sums, squares, of_each, groups.sizes, alone=0.25 if answers else 1.0)


def of_sums(
    sums: NDArray[Any],
    squares: NDArray[Any],
    of_each: NDArray[Any],
    sizes: NDArray[np.int64],
    *,
    alone: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return what `by_group` does, from the sums of the values in each group.

    `sums`: (R, G, S) of each seed. `squares`: (R, G) of the squared values. `of_each`: (R, G) of
    the squared sum over seeds of each sample. `alone`: the variance in a group of one sample, which
    says nothing of it: the largest that values of this range can have.
    """
    seeds, n = sums.shape[2], sizes
    middle = sums.sum(axis=2).astype(np.float64) ** 2 / (n * seeds)
    of_samples = of_each / seeds - middle
    of_seeds = (sums.astype(np.float64) ** 2).sum(axis=2) / n - middle
    many = np.maximum(n - 1, 1)
    rest = np.maximum(squares - middle - of_samples - of_seeds, 0.0)
    rest /= many * max(seeds - 1, 1)
    v_total = of_samples / many / (n * seeds)
    v_samples = np.maximum(of_samples / many - rest, 0.0) / (n * seeds)
    for variance in (v_samples, v_total):
        variance[:, n == 1] = alone
    return sums / n[:, None], v_samples, v_total


def chunks(rows: int, each: int) -> Iterator[slice]:
    """Yield slices that cover `rows` rows; each slice fits into memory.

    `each`: numbers that a row has.
    """
    step = max(1, MOST // max(each, 1))
    for first in range(0, rows, step):
        yield slice(first, first + step)


def p_values(differences: Sequence[Parts]) -> list[float]:
    """Return for each difference the two-sided p: the level at which its interval touches 0."""
    if not differences:
        return []
    mean = np.array([abs(d.mean) for d in differences])
    v_seeds = np.array([d.v_seeds for d in differences])
    v_samples = np.array([d.v_samples for d in differences])
    seeds = np.array([d.seeds - 1 for d in differences], dtype=np.float64)
    freedom = np.array([d.freedom for d in differences], dtype=np.float64)
    certain, equal = v_seeds + v_samples < NOTHING, mean < 1e-12
    p = np.where(equal, 1.0, 0.0)
    open_ = np.flatnonzero(~certain & ~equal)
    if open_.size:
        of = (array[open_] for array in (mean, v_seeds, v_samples, seeds, freedom))
        p[open_] = np.exp(_log_p(*of))
    values: list[float] = p.tolist()
    return values


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

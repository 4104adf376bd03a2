"""What `crossed` and `groups` compute of one table, for many tables at once: the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.leaderboard.crossed import Parts
from debiasbench.leaderboard.groups import wilson

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from debiasbench.leaderboard.crossed import Groups

MOST = 1 << 22  # numbers of tables that are in memory together
TAIL = 9.0  # standard deviations beyond which a binomial distribution has nothing


def chunks(rows: int, each: int) -> Iterator[slice]:
    """Yield the slices of so many rows, of `each` numbers, that fit into memory together."""
    step = max(1, MOST // max(each, 1))
    for first in range(0, rows, step):
        yield slice(first, first + step)


def by_groups(
    tables: NDArray[Any], groups: Groups
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (R, G, S) and (R, G) what `crossed.by_group` does for each of R tables, (R, S, N)."""
    x = tables.view(np.int8) if tables.dtype == bool else tables
    seeds, n = x.shape[1], groups.sizes
    sums = np.add.reduceat(x, groups.starts, axis=2, dtype=np.int64)  # (R, S, G)
    each = np.add.reduce(x, axis=1, dtype=np.int32).astype(np.int64)  # (R, N)
    middle = sums.sum(axis=1).astype(np.float64) ** 2 / (n * seeds)
    of_samples = np.add.reduceat(each * each, groups.starts, axis=1) / seeds - middle
    of_seeds = (sums.astype(np.float64) ** 2).sum(axis=1) / n - middle
    if tables.dtype == bool:
        squares = sums.sum(axis=1)
    else:
        ones = np.add.reduce(np.abs(x), axis=1, dtype=np.int32)
        squares = np.add.reduceat(ones, groups.starts, axis=1, dtype=np.int64)
    many = np.maximum(n - 1, 1)
    rest = np.maximum(squares - middle - of_samples - of_seeds, 0.0)
    rest /= many * max(seeds - 1, 1)
    v_samples = np.maximum(of_samples / many - rest, 0.0) / (n * seeds)
    v_samples[:, n == 1] = 0.25 if tables.dtype == bool else 1.0
    if tables.dtype != bool:  # a difference that is nowhere negative counts as a table of 0 and 1
        v_samples[np.ix_(x.min(axis=(1, 2)) >= 0, n == 1)] = 0.25
    return (sums / n).transpose(0, 2, 1), v_samples


def parts(
    means: NDArray[np.float64], v_samples: NDArray[np.float64], groups: Groups
) -> list[Parts]:
    """Return what `crossed.parts` does, from what `by_groups` returned for tables of two seeds."""
    of_seeds = np.einsum("g,rgs->rs", groups.weights, means)
    seeds = of_seeds.shape[1]
    mean = of_seeds.mean(axis=1).tolist()
    v_seeds = (of_seeds.var(axis=1, ddof=1) / seeds).tolist()
    of_samples = (groups.weights**2 * v_samples).sum(axis=1).tolist()
    used = groups.weights != 0
    freedom = max(int(groups.sizes[used].sum()) - int(used.sum()), 1)
    return [
        Parts(m, a, b, seeds, freedom) for m, a, b in zip(mean, v_seeds, of_samples, strict=True)
    ]


def worst_groups(
    means: NDArray[np.float64],
    v_samples: NDArray[np.float64],
    groups: Groups,
    level: float = 0.05,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (R,) the bounds that `groups.worst_group` does, from what `by_groups` returned."""
    low, high = _bounds(means, v_samples, groups, np.full((len(means), 1), level))
    may_be = low <= high.min(axis=1, keepdims=True)
    corrected = _bounds(means, v_samples, groups, level / may_be.sum(axis=1, keepdims=True))[1]
    upper = np.where(may_be, corrected, np.inf).min(axis=1)
    point = means.min(axis=1).mean(axis=1)
    return np.minimum(low.min(axis=1), point), np.maximum(upper, point)


def _bounds(
    means: NDArray[np.float64],
    v_samples: NDArray[np.float64],
    groups: Groups,
    level: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (R, G) the bounds of the accuracy of each group; `level`: (R, 1)."""
    from scipy.special import ndtri, stdtrit

    a, n, seeds = means.mean(axis=2), groups.sizes, means.shape[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = np.minimum(a * (1 - a) / v_samples, 2.0 * n)
    effective = np.where(v_samples <= 0, 2.0 * n, effective)
    effective = np.maximum(np.where((a == 0) | (a == 1), n, effective), 1.0)
    low, high = wilson(a, effective, -ndtri(level / 2))
    of_seeds: Any = 0.0
    if seeds > 1:
        of_seeds = stdtrit(seeds - 1, level / 2) ** 2 * means.var(axis=2, ddof=1) / seeds
    return (
        np.maximum(0.0, a - np.sqrt(of_seeds + (a - low) ** 2)),
        np.minimum(1.0, a + np.sqrt(of_seeds + (high - a) ** 2)),
    )


def noise_floors(accuracies: NDArray[np.float64], sizes: Sequence[int]) -> NDArray[np.float64]:
    """Return (R,) what `groups.noise_floor` does for each of (R,) accuracies."""
    from scipy.special import bdtr

    counts: dict[int, int] = {}
    for n in sizes:
        counts[int(n)] = counts.get(int(n), 0) + 1
    grid = np.unique(np.concatenate([np.arange(n + 1) / n for n in counts]))
    steps, found = np.diff(grid), np.empty(len(accuracies))
    for rows in chunks(len(accuracies), len(grid)):
        p = accuracies[rows, None]
        survival = np.zeros((len(p), len(steps)))
        for n, many in counts.items():
            right = np.floor(grid[:-1] * n + 1e-9)
            wide = TAIL * np.sqrt(n * p * (1 - p)) + TAIL**2 / 3 + 1  # Bernstein's inequality
            near = np.abs(right - n * p) <= wide
            below = np.where(right < n * p, 0.0, 1.0)  # P(Binomial(n, p) <= right)
            below[near] = bdtr(
                np.broadcast_to(right, near.shape)[near], n, np.broadcast_to(p, near.shape)[near]
            )
            with np.errstate(divide="ignore"):
                survival += many * np.log(np.clip(1 - below, 0.0, 1.0))
        found[rows] = np.exp(survival) @ steps
    return found


def over_samples(
    means: NDArray[np.float64], groups: Groups
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (R,) Wilson's bounds over samples for one seed, or for tables without variance.

    `means`: (R, G, S) as `by_groups` returns them.
    """
    a = means.mean(axis=2)
    mean = np.clip(a @ groups.weights, 0.0, 1.0)
    variance = (groups.weights**2 * a * (1 - a) / groups.sizes).sum(axis=1)
    smallest = 1 / float((groups.weights**2 / groups.sizes).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = np.where(variance > 0, mean * (1 - mean) / variance, smallest)
    low, high = wilson(mean, effective)
    return np.maximum(0.0, low), np.minimum(1.0, high)

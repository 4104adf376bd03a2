"""The worst group: its interval, and what a classifier that is fair to all groups would show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.leaderboard.crossed import by_group, chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from debiasbench.leaderboard.crossed import Groups


NORMAL = 1.959963984540054  # half width of a 95 % interval, in standard deviations
TAIL = 9.0  # standard deviations beyond which a binomial distribution has nothing


@dataclass(frozen=True)
class WorstGroup:
    """The accuracy of the worst group, the mean over seeds of the minimum over groups."""

    point: float
    low: float
    high: float
    candidates: int  # groups that may be the worst


def worst_group(table: NDArray[Any], groups: Groups, level: float = 0.05) -> WorstGroup:
    """Return the accuracy of the worst group with an interval of coverage 1 - `level`.

    `table`: (N, S) of 0 and 1, samples sorted by group; the weights of `groups` do not matter. Each
    group has an interval with Wilson's for the samples and Student's for the seeds. The lower bound
    is the smallest of their lower bounds, among which is that of the true worst group. The upper
    bound is the smallest of the upper bounds of those groups that may be the worst, with Bonferroni
    over them.
    """
    means, v_samples, _ = by_group(np.asarray(table, dtype=bool).T[None], groups)
    low, high, candidates = worst_groups(means, v_samples, groups, level)
    point = float(means[0].min(axis=0).mean())
    return WorstGroup(point, float(low[0]), float(high[0]), int(candidates[0]))


def worst_groups(
    means: NDArray[np.float64],
    v_samples: NDArray[np.float64],
    groups: Groups,
    level: float = 0.05,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return (R,) low, high and candidates of `worst_group`, from what `by_group` returned."""
    low, high = _bounds(means, v_samples, groups, np.full((len(means), 1), level))
    may_be = low <= high.min(axis=1, keepdims=True)
    corrected = _bounds(means, v_samples, groups, level / may_be.sum(axis=1, keepdims=True))[1]
    upper = np.where(may_be, corrected, np.inf).min(axis=1)
    point = means.min(axis=1).mean(axis=1)
    return np.minimum(low.min(axis=1), point), np.maximum(upper, point), may_be.sum(axis=1)


def v_of_worst(means: NDArray[np.float64], v_samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (R,) the variance, from samples alone, of the group with the lowest mean over seeds.

    `means`, `v_samples`: what `by_group` returned.
    """
    lowest = means.mean(axis=2).argmin(axis=1)
    found: NDArray[np.float64] = v_samples[np.arange(len(means)), lowest]
    return found


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


def wilson(accuracy: Any, n: Any, z: float = NORMAL) -> tuple[Any, Any]:
    """Return Wilson's interval of an accuracy over n samples (Wilson, JASA 1927).

    `accuracy`, `n`: numbers or arrays. `z`: of the normal distribution; the default is that of
    95 %.
    """
    scale = 1 + z * z / n
    centre = (accuracy + z * z / (2 * n)) / scale
    half = z * np.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n)) / scale
    return centre - half, centre + half


def over_samples(
    means: NDArray[np.float64], groups: Groups
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (R,) Wilson's bounds over samples for one seed, or for tables without variance.

    `means`: (R, G, S) as `by_group` returns them.
    """
    a = means.mean(axis=2)
    mean = np.clip(a @ groups.weights, 0.0, 1.0)
    variance = (groups.weights**2 * a * (1 - a) / groups.sizes).sum(axis=1)
    smallest = 1 / float((groups.weights**2 / groups.sizes).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = np.where(variance > 0, mean * (1 - mean) / variance, smallest)
    low, high = wilson(mean, effective)
    return np.maximum(0.0, low), np.minimum(1.0, high)


def noise_floor(accuracy: float, sizes: Sequence[int]) -> float:
    """Return the expected accuracy of the worst group if all groups have the same true accuracy.

    `accuracy`: in [0, 1]. `sizes`: test samples of each group, none of them 0. With few samples a
    group, the worst one is far below `accuracy` by chance alone.
    """
    return float(noise_floors(np.array([accuracy]), sizes)[0])


def noise_floors(accuracies: NDArray[np.float64], sizes: Sequence[int]) -> NDArray[np.float64]:
    """Return (R,) what `noise_floor` does for each of (R,) accuracies."""
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

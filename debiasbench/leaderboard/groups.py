"""The worst group: its interval, and what a classifier that is fair to all groups would show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.leaderboard.crossed import by_group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from debiasbench.leaderboard.crossed import Groups


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
    means, v_samples = by_group(table, groups)
    low, high = _bounds(means, v_samples, groups, level)
    may_be = low <= high.min()
    corrected = _bounds(means, v_samples, groups, level / may_be.sum())[1][may_be].min()
    point = float(means.min(axis=0).mean())
    return WorstGroup(
        point, min(float(low.min()), point), max(float(corrected), point), int(may_be.sum())
    )


def _bounds(
    means: NDArray[np.float64], v_samples: NDArray[np.float64], groups: Groups, level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (G,) the bounds of the accuracy of each group, in [0, 1]."""
    from scipy.special import ndtri, stdtrit

    a, n, seeds = means.mean(axis=1), groups.sizes, means.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = np.minimum(a * (1 - a) / v_samples, 2.0 * n)
    effective = np.where(v_samples <= 0, 2.0 * n, effective)
    effective = np.maximum(np.where((a == 0) | (a == 1), n, effective), 1.0)
    low, high = wilson(a, effective, -float(ndtri(level / 2)))
    of_seeds = np.zeros(len(a))
    if seeds > 1:
        of_seeds = stdtrit(seeds - 1, level / 2) ** 2 * means.var(axis=1, ddof=1) / seeds
    return (
        np.maximum(0.0, a - np.sqrt(of_seeds + (a - low) ** 2)),
        np.minimum(1.0, a + np.sqrt(of_seeds + (high - a) ** 2)),
    )


def wilson(accuracy: Any, n: Any, z: float = 1.959963984540054) -> tuple[Any, Any]:
    """Return Wilson's interval of an accuracy over n samples (Wilson, JASA 1927).

    `accuracy`, `n`: numbers or arrays. `z`: of the normal distribution; the default is that of
    95 %.
    """
    scale = 1 + z * z / n
    centre = (accuracy + z * z / (2 * n)) / scale
    half = z * np.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n)) / scale
    return centre - half, centre + half


def noise_floor(accuracy: float, sizes: Sequence[int]) -> float:
    """Return the expected accuracy of the worst group if all groups have the same true accuracy.

    `accuracy`: in [0, 1]. `sizes`: test samples of each group, none of them 0. With few samples a
    group, the worst one is far below `accuracy` by chance alone.
    """
    counts: dict[int, int] = {}
    for n in sizes:
        counts[int(n)] = counts.get(int(n), 0) + 1
    return _floor(accuracy, tuple(counts.items()))


@lru_cache(maxsize=4096)  # tables of other metrics have the same rows
def _floor(accuracy: float, counts: tuple[tuple[int, int], ...]) -> float:
    """Return the noise floor for groups as pairs of a size and the number of groups of it."""
    from scipy.special import bdtr

    grid = np.unique(np.concatenate([np.arange(n + 1) / n for n, _ in counts]))
    survival = np.zeros(len(grid) - 1)  # log P(every group is above grid[j - 1])
    for n, many in counts:
        # Binomial(n, p) / n > v means at least floor(n v) + 1 right
        right = np.floor(grid[:-1] * n + 1e-9)
        with np.errstate(divide="ignore"):
            survival += many * np.log(np.clip(1 - bdtr(right, n, accuracy), 0.0, 1.0))
    return float((np.diff(grid) * np.exp(survival)).sum())

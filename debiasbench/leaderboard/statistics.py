"""Statistics over few seeds, for rows without predictions: Student's intervals and paired tests.

They are too narrow, and find differences too often, because all seeds share the test samples; see
`debiasbench.leaderboard.crossed`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's interval for the mean of (n,) values; NaN for fewer than two."""
    from scipy.special import stdtrit  # scipy.stats takes seconds to import

    n = len(values)
    if n < 2:
        return math.nan, math.nan
    half = stdtrit(n - 1, (1 + confidence) / 2) * np.std(values, ddof=1) / math.sqrt(n)
    mean = float(np.mean(values))
    return mean - float(half), mean + float(half)


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float]
) -> tuple[float, float, float]:
    """Return the mean of value minus baseline over common seeds, and its 95 % interval.

    All three are NaN for fewer than two common seeds.
    """
    differences = [values[s] - baseline[s] for s in sorted(values.keys() & baseline.keys())]
    if len(differences) < 2:
        return math.nan, math.nan, math.nan
    return float(np.mean(differences)), *interval(differences)


def paired_p(better: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Return the two-sided p of a paired t-test over common seeds; NaN for fewer than two.

    If all differences are equal, p is 1 if they are 0, and 0 otherwise.
    """
    from scipy.special import stdtr

    seeds = sorted(better.keys() & other.keys())
    differences = np.array([better[s] - other[s] for s in seeds])
    n = len(differences)
    if n < 2:
        return math.nan
    mean, spread = differences.mean(), differences.std(ddof=1)
    if spread <= 1e-12:  # equal to rounding
        return 1.0 if abs(mean) <= 1e-12 else 0.0
    return float(2 * stdtr(n - 1, -abs(mean) / (spread / math.sqrt(n))))


def holm(p_values: Sequence[float], level: float = 0.05) -> list[bool]:
    """Return which hypotheses Holm's step-down procedure rejects at `level` (Holm, 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected = [False] * len(p_values)
    for rank, i in enumerate(order):
        if not p_values[i] <= level / (len(p_values) - rank):
            break
        rejected[i] = True
    return rejected

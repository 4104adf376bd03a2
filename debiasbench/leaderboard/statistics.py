"""How sure one can be over few seeds: Student intervals and paired tests.

Bootstrap intervals cover too rarely with 3 to 10 seeds, and rank tests cannot reach p < 0.05
with 5; Student's t does both, so it is what the tables use.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's interval for the mean of (n,) values; NaN for fewer than two."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return math.nan, math.nan
    half = t.ppf((1 + confidence) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    mean = float(np.mean(values))
    return mean - float(half), mean + float(half)


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float]
) -> tuple[float, float, float]:
    """Return the mean over common seeds of value minus baseline, and its 95 % interval.

    All NaN where they have fewer than two seeds in common.
    """
    differences = [values[s] - baseline[s] for s in sorted(values.keys() & baseline.keys())]
    if len(differences) < 2:
        return math.nan, math.nan, math.nan
    return float(np.mean(differences)), *interval(differences)


def paired_p(better: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Return the two-sided p of a paired t-test over the seeds both have; NaN below two.

    Differences that do not vary at all give 1 if they are 0, and 0 otherwise.
    """
    from scipy.stats import t

    seeds = sorted(better.keys() & other.keys())
    differences = np.array([better[s] - other[s] for s in seeds])
    n = len(differences)
    if n < 2:
        return math.nan
    mean, spread = differences.mean(), differences.std(ddof=1)
    if spread <= 1e-12:  # equal to rounding
        return 1.0 if abs(mean) <= 1e-12 else 0.0
    return float(2 * t.sf(abs(mean) / (spread / math.sqrt(n)), n - 1))


def holm(p_values: Sequence[float], level: float = 0.05) -> list[bool]:
    """Say which hypotheses Holm's step-down procedure rejects at `level` (Holm, 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected = [False] * len(p_values)
    for rank, i in enumerate(order):
        if not p_values[i] <= level / (len(p_values) - rank):
            break
        rejected[i] = True
    return rejected


def indistinguishable(rows: Sequence[Mapping[int, float]]) -> list[bool]:
    """Mark the row of the best mean, and those a paired test cannot tell from it.

    `rows`: seed -> value, one mapping a row. A row with fewer than two seeds, or with fewer than
    two in common with the best, is not compared and not marked.
    """
    compared = [i for i, row in enumerate(rows) if len(row) >= 2]
    if not compared:
        return [False] * len(rows)
    best = max(compared, key=lambda i: float(np.mean(list(rows[i].values()))))
    p = {i: paired_p(rows[best], rows[i]) for i in compared if i != best}
    p = {i: value for i, value in p.items() if not math.isnan(value)}
    worse = dict(zip(p, holm(list(p.values())), strict=True))
    return [i == best or (i in worse and not worse[i]) for i in range(len(rows))]

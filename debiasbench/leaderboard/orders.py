"""Orders of rows: ranks by points, how much two orders agree, and tests over many data sets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEVEL = 0.05


@dataclass(frozen=True)
class Friedman:
    """Friedman's test over data sets, and Nemenyi's critical distance at 5 %.

    `distance`: mean ranks that are at least this far apart differ significantly.
    """

    statistic: float
    p: float
    distance: float
    data_sets: int
    lines: int


def places(values: Sequence[float]) -> list[float]:
    """Return the rank of each value, 1 for the largest; equal values share the mean of theirs."""
    x = np.asarray(values, dtype=np.float64)
    above = (x[None, :] > x[:, None]).sum(axis=1)
    equal = (x[None, :] == x[:, None]).sum(axis=1)
    return [float(place) for place in above + (equal + 1) / 2]


def kendall(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Kendall's tau-b of two orders of the same rows; NaN if one has no order.

    1 for the same order, -1 for the reverse. Pairs that are equal in one of them count for neither
    (Kendall, The Treatment of Ties in Ranking Problems, Biometrika 1945).
    """
    a, b = _signs(one), _signs(other)
    of_each = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / of_each if of_each else math.nan


def _signs(values: Sequence[float]) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    signs: NDArray[np.float64] = np.sign(x[:, None] - x[None, :])
    return signs


def friedman(ranks: Sequence[Sequence[float]]) -> Friedman | None:
    """Test whether all lines have the same mean rank; `ranks`: one list for each data set.

    None for fewer than three lines. Data sets count as drawn independently (Demsar, Statistical
    Comparisons of Classifiers over Multiple Data Sets, JMLR 2006).
    """
    from scipy.special import chdtrc

    x = np.asarray(ranks, dtype=np.float64)
    many, lines = x.shape
    if lines < 3:
        return None
    ties = sum(
        float((counts**3 - counts).sum())
        for counts in (np.unique(row, return_counts=True)[1] for row in x)
    )
    spread = ((x.sum(axis=0) - many * (lines + 1) / 2) ** 2).sum()
    scale = many * lines * (lines + 1) / 12 - ties / (12 * (lines - 1))
    statistic = float(spread / scale) if scale > 0 else 0.0
    p = float(chdtrc(lines - 1, statistic))
    return Friedman(statistic, p, critical_distance(lines, many), many, lines)


def critical_distance(lines: int, data_sets: int) -> float:
    """Return Nemenyi's critical distance of mean ranks at 5 %."""
    from scipy.stats import studentized_range  # slow to import, and rarely used

    quantile = float(studentized_range.ppf(1 - LEVEL, lines, math.inf))
    return quantile / math.sqrt(2) * math.sqrt(lines * (lines + 1) / (6 * data_sets))

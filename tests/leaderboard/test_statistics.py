"""Intervals and tests over seeds, against scipy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from debiasbench.leaderboard.statistics import holm, interval, paired_p


@pytest.mark.parametrize("values", [[0.1, 0.4, 0.3], [0.5, 0.5], [0.2, 0.9, 0.4, 0.4, 0.1]])
def test_the_interval_is_scipys(values: list[float]) -> None:
    assert interval(values)[1] - np.mean(values) == pytest.approx(
        stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    )


def test_an_interval_needs_two_values() -> None:
    assert all(math.isnan(v) for v in interval([0.5]))


def test_the_paired_test_is_scipys_over_common_seeds() -> None:
    a, b = {0: 0.5, 1: 0.7, 2: 0.6, 7: 0.0}, {0: 0.4, 1: 0.65, 2: 0.3, 9: 1.0}
    expected = stats.ttest_rel([0.5, 0.7, 0.6], [0.4, 0.65, 0.3]).pvalue
    assert paired_p(a, b) == pytest.approx(expected)
    assert math.isnan(paired_p({0: 1.0}, {0: 0.5}))
    assert paired_p({0: 0.5, 1: 0.6}, {0: 0.5, 1: 0.6}) == 1
    assert paired_p({0: 0.5, 1: 0.6}, {0: 0.4, 1: 0.5}) == 0


def test_holm_steps_down_and_stops_at_the_first_it_cannot_reject() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert holm([0.02, 0.02]) == [True, True]
    assert holm([]) == []

"""Intervals and tests over seeds and test samples: examples worked out by hand, and simulations."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr

from debiasbench.leaderboard.crossed import Groups, Parts, p_value, p_values, parts
from debiasbench.leaderboard.statistics import holm

ONE = Groups.of([6], [1.0])


def table(*rows: str) -> NDArray[Any]:
    return np.array([[int(c) for c in row] for row in rows], dtype=np.int8)


def one_group(x: NDArray[Any]) -> Groups:
    return Groups.of([len(x)], [1.0])


A = table("111", "110", "111", "011", "111", "101", "111", "000")
B = table("101", "110", "011", "010", "111", "100", "101", "000")


def test_the_parts_of_a_table_of_six_samples_and_three_seeds() -> None:
    x = table("110", "111", "101", "000", "111", "111")
    found = parts(x, ONE)
    assert found.mean == pytest.approx(0.722222, abs=1e-6)
    assert found.v_seeds == pytest.approx(0.00308642, abs=1e-8)  # MSS .055556 / 18
    assert found.v_samples == pytest.approx(0.0185185, abs=1e-7)  # (.455556 - .122222) / 18
    assert (found.seeds, found.freedom) == (3, 5)
    assert found.interval() == pytest.approx((0.298540, 1.145905), abs=1e-6)


def test_a_difference_without_variance_between_samples_is_the_paired_t_test() -> None:
    found = parts(A - B, one_group(A))
    assert found.mean == pytest.approx(0.208333, abs=1e-6)
    assert found.v_seeds == pytest.approx(0.00173611, abs=1e-8)
    assert found.v_samples == 0
    assert found.interval() == pytest.approx((0.029056, 0.387611), abs=1e-6)
    assert p_value(found) == pytest.approx(0.037750, abs=1e-6)
    paired = stats.ttest_rel(A.mean(axis=0), B.mean(axis=0))
    assert p_value(found) == pytest.approx(paired.pvalue)


def test_the_variance_of_samples_is_within_their_groups() -> None:
    x = table("11", "10", "11", "00", "11", "01", "00")
    found = parts(x, Groups.of([4, 3], [0.5, 0.5]))
    assert found.mean == pytest.approx(0.5625)
    assert found.v_seeds == pytest.approx(0.000434028, abs=1e-9)
    assert found.v_samples == pytest.approx(0.0243056, abs=1e-7)
    assert found.freedom == 5


def test_equal_tables_do_not_differ() -> None:
    found = parts(A - A, one_group(A))
    assert found.interval() == (0.0, 0.0)
    assert p_value(found) == 1.0


def test_a_difference_that_is_the_same_for_all_seeds_and_samples_is_certain() -> None:
    assert p_value(parts(np.ones((8, 3), dtype=int), one_group(A))) == 0.0


def test_the_p_of_a_clear_difference_is_small_and_not_zero() -> None:
    assert 0 < p_value(Parts(0.5, 1e-6, 1e-6, 5, 1000)) < 1e-6


def test_many_p_values_at_once_are_those_of_each() -> None:
    rng = np.random.default_rng(0)
    found = [parts(rng.integers(-1, 2, (30, 4)), Groups.of([30], [1.0])) for _ in range(5)]
    assert p_values(found) == pytest.approx([p_value(one) for one in found])
    assert p_values([]) == []


def test_groups_without_weight_count_for_nothing() -> None:
    x = np.random.default_rng(0).integers(0, 2, (30, 3))
    without = parts(x[10:], Groups.of([20], [1.0]))
    assert parts(x, Groups.of([10, 20], [0.0, 1.0])) == without


def test_a_group_of_one_sample_has_the_largest_variance_that_its_values_can_have() -> None:
    x, groups = table("11", "11", "10"), Groups.of([2, 1], [0.5, 0.5])
    assert parts(x.astype(bool), groups).v_samples == pytest.approx(0.25 * 0.25)
    for difference in (x, -x):
        assert parts(difference, groups).v_samples == pytest.approx(0.25)


def test_the_p_of_a_difference_does_not_depend_on_which_row_is_first() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random((41, 3)) < 0.9, rng.random((41, 3)) < 0.6
    groups = Groups.of([1, 40], [0.5, 0.5])
    d = a.astype(np.int8) - b
    assert p_value(parts(d, groups)) == pytest.approx(p_value(parts(-d, groups)))


def test_seeds_that_agree_by_chance_do_not_make_a_difference_certain() -> None:
    d = np.zeros((450, 2), dtype=np.int8)
    d[7, 0] = d[300, 1] = 1  # one more sample is right with each seed, always another one
    found = parts(d, Groups.of([450], [1.0]))
    assert found.v_seeds == 0
    assert p_value(found) > 0.05


@pytest.mark.parametrize("number", range(20))
def test_p_and_interval_agree_and_order_does_not_matter(number: int) -> None:
    rng = np.random.default_rng(number)
    groups = Groups.of([30, 50], [0.3, 0.7])
    a, b = rng.random((80, 4)) < 0.7, rng.random((80, 4)) < rng.uniform(0.4, 0.9)
    d = a.astype(int) - b
    found = parts(d, groups)
    low, high = found.interval()
    assert (p_value(found) < 0.05) == (not low <= 0 <= high)
    assert p_value(parts(-d, groups)) == pytest.approx(p_value(found))
    mixed = np.concatenate([rng.permutation(d[:30]), rng.permutation(d[30:])])[:, ::-1]
    assert parts(mixed, groups).interval() == pytest.approx((low, high))
    assert found.mean == pytest.approx(0.3 * d[:30].mean() + 0.7 * d[30:].mean())


def test_twice_the_samples_halve_the_variance_of_samples_only() -> None:
    x = np.random.default_rng(1).random((400, 3)) < np.linspace(0, 1, 400)[:, None]
    once, twice = parts(x, one_group(x)), parts(np.tile(x, (2, 1)), Groups.of([800], [1.0]))
    assert twice.v_seeds == pytest.approx(once.v_seeds)
    assert twice.v_samples == pytest.approx(once.v_samples / 2, rel=0.01)


# --- simulations: the accuracy that is true of all seeds and samples is known -------------------


def simulated(
    rng: np.random.Generator, methods: int, samples: int, seeds: int, spread: float
) -> NDArray[np.bool_]:
    """Return equal methods, (methods, N, S): right with the probit of ability minus difficulty.

    Difficulties of a sample agree between methods (correlation .8); the item share of the variance
    is about two thirds, as in published records. `spread`: of seeds, in units of the probit.
    """
    shared, own = rng.normal(size=(1, samples, 1)), rng.normal(size=(methods, samples, 1))
    hard = SD * (math.sqrt(0.8) * shared + math.sqrt(0.2) * own)
    ability = CENTRE + spread * rng.normal(size=(methods, 1, seeds))
    noise = rng.normal(size=(methods, samples, seeds))
    return ability - hard + noise > 0


SD, CENTRE = 2.0, 1.5
FEW = [
    (2, 180, 0.05),
    (3, 180, 0.05),
    (5, 180, 0.05),
    (3, 2000, 0.05),
    (5, 2000, 0.05),
]  # seeds differ little


@pytest.mark.parametrize(("seeds", "samples", "spread"), [*FEW, (3, 2000, 0.3)])
def test_intervals_cover_the_accuracy_that_is_true_of_all_seeds_and_samples(
    seeds: int, samples: int, spread: float
) -> None:
    rng = np.random.default_rng(seeds * samples)
    true = ndtr(CENTRE / math.sqrt(1 + SD**2 + spread**2))
    groups, tables = Groups.of([samples], [1.0]), 800 if samples == 180 else 250
    crossed = student = 0
    for _ in range(tables):
        x = simulated(rng, 1, samples, seeds, spread)[0]
        low, high = parts(x, groups).interval()
        crossed += low <= true <= high
        of_seeds = x.mean(axis=0)
        half = stats.t.ppf(0.975, seeds - 1) * stats.sem(of_seeds)
        student += abs(of_seeds.mean() - true) <= half
    assert 0.93 <= crossed / tables <= 0.99
    if spread < 0.1:
        assert student / tables < 0.9  # what tables showed before


@pytest.mark.parametrize(("seeds", "samples", "spread"), FEW)
def test_equal_methods_are_seldom_called_different(seeds: int, samples: int, spread: float) -> None:
    # where seeds differ much, the test is the paired t-test, whose level is 5 % exactly
    rng = np.random.default_rng(seeds + samples)
    groups, boards = Groups.of([samples], [1.0]), 150 if samples == 180 else 50
    pairs = false = family = 0
    for _ in range(boards):
        x = simulated(rng, 5, samples, seeds, spread).astype(np.int8)
        p = p_values([parts(a - b, groups) for a, b in pairwise(x)])
        false += sum(one < 0.05 for one in p)
        pairs += len(p)
        best = int(x.mean(axis=(1, 2)).argmax())
        against = p_values([parts(x[best] - b, groups) for i, b in enumerate(x) if i != best])
        family += any(holm(against))
    assert false / pairs < 0.05
    assert family / boards < 0.1

"""All pairs of rows at once: the same numbers as pair by pair, and fast."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import stdtrit

from debiasbench.leaderboard.crossed import Groups, Parts, p_values, parts
from debiasbench.leaderboard.pairs import parts_of_pairs


def tables(
    rng: np.random.Generator, rows: int, samples: int, seeds: int
) -> list[NDArray[np.bool_]]:
    hard = 2 * rng.normal(size=(samples, 1))
    return [
        1 + rng.normal(size=(1, seeds)) / 10 - hard + rng.normal(size=(samples, seeds)) > 0
        for _ in range(rows)
    ]


def same(one: Parts, other: Parts) -> None:
    assert one.mean == pytest.approx(other.mean, abs=1e-10)
    assert one.v_seeds == pytest.approx(other.v_seeds, abs=1e-10)
    assert one.v_samples == pytest.approx(other.v_samples, abs=1e-10)
    assert (one.seeds, one.freedom) == (other.seeds, other.freedom)


@pytest.mark.parametrize(
    ("sizes", "weights"),
    [
        ([200], [1.0]),
        ([50, 30, 20, 100], [0.25, 0.25, 0.25, 0.25]),
        ([50, 30, 20, 100], [0.0, 0.6, 0.4, 0.0]),  # such as conflict accuracy
        ([1, 40, 1], [0.2, 0.5, 0.3]),
        ([40, 1], [1.0, 0.0]),
    ],
)
@pytest.mark.parametrize("seeds", [2, 5])
def test_all_pairs_at_once_are_those_of_each_pair(
    sizes: list[int], weights: list[float], seeds: int
) -> None:
    rng = np.random.default_rng(seeds)
    groups, made = Groups.of(sizes, weights), tables(rng, 6, sum(sizes), seeds)
    made += [made[0], made[1] | made[0], np.ones_like(made[0]), np.zeros_like(made[0])]
    pairs = [*combinations(range(len(made)), 2), (3, 1), (2, 2)]
    stacked = np.stack([table.T for table in made])
    for some in (pairs, pairs[:5]):  # all at once, and one by one
        for (i, j), found in zip(some, parts_of_pairs(stacked, groups, some), strict=True):
            same(found, parts(made[i].astype(np.int8) - made[j], groups))
    assert parts_of_pairs(stacked, groups, []) == []


def test_sums_beyond_the_exact_numbers_of_32_bits_stay_exact() -> None:
    rng = np.random.default_rng(0)
    seeds, samples = 300, 400  # 300^2 * 400 is above 2^24
    groups, made = Groups.of([samples], [1.0]), tables(rng, 3, samples, seeds)
    pairs = 2 * list(combinations(range(3), 2))  # as many as are computed at once
    stacked = np.stack([table.T for table in made])
    for (i, j), found in zip(pairs, parts_of_pairs(stacked, groups, pairs), strict=True):
        same(found, parts(made[i].astype(np.int8) - made[j], groups))


def test_the_p_of_newtons_method_is_that_of_bisection() -> None:
    found = [
        Parts(mean, v_seeds, v_samples, seeds, freedom)
        for mean in (1e-6, 0.01, 0.5)
        for v_seeds in (0, 1e-12, 1e-5, 0.01)
        for v_samples in (0, 1e-12, 1e-5, 0.01)
        for seeds in (2, 3, 10)
        for freedom in (1, 5, 10_000)
    ]
    for one, p in zip(found, p_values(found), strict=True):
        low, high = -60.0, 0.0
        for _ in range(60):
            middle = (low + high) / 2
            t = stdtrit([one.seeds - 1, one.freedom], np.exp(middle) / 2)
            wider = t[0] ** 2 * one.v_seeds + t[1] ** 2 * one.v_samples > one.mean**2
            low, high = (middle, high) if wider else (low, middle)
        expected = 0.0 if one.v_seeds + one.v_samples == 0 else np.exp(low)
        assert p == pytest.approx(expected, rel=1e-9, abs=1e-25)

"""The worst group: Wilson's interval, the noise floor, and the interval of the minimum."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from debiasbench.leaderboard.crossed import Groups
from debiasbench.leaderboard.groups import noise_floor, wilson, worst_group


def test_wilsons_interval() -> None:
    assert wilson(0.85, 180) == pytest.approx((0.790555, 0.894818), abs=1e-6)


@pytest.mark.parametrize(
    ("accuracy", "sizes", "floor"),
    [
        (0.8, [2, 2], 0.6656),
        (0.8, [5] * 100, 0.296),  # digits
        (0.8, [100] * 100, 0.695),  # CMNIST
        (0.9, [100] * 100, 0.818),
        (0.8, [450, 50, 50, 450], 0.757),  # BFFHQ
        (0.6, [5] * 100, 0.071),
        (1.0, [3, 4], 1.0),
        (0.0, [3, 4], 0.0),
    ],
)
def test_the_noise_floor_is_what_equal_groups_show(
    accuracy: float, sizes: list[int], floor: float
) -> None:
    assert noise_floor(accuracy, sizes) == pytest.approx(floor, abs=6e-4)


def test_the_noise_floor_is_the_mean_of_the_minimum() -> None:
    sizes, p = [3, 4, 6], 0.7
    expected = 0.0
    for hits in itertools.product(*(range(n + 1) for n in sizes)):
        probability = math.prod(
            math.comb(n, k) * p**k * (1 - p) ** (n - k) for n, k in zip(sizes, hits, strict=True)
        )
        expected += probability * min(k / n for n, k in zip(sizes, hits, strict=True))
    assert noise_floor(p, sizes) == pytest.approx(expected)


def test_the_worst_group_of_two_is_the_one_that_can_be_the_worst() -> None:
    x = np.concatenate([np.ones((90, 3)), np.zeros((10, 3))])
    found = worst_group(x, Groups.of([50, 50], [0.5, 0.5]))
    assert (found.point, found.candidates) == (pytest.approx(0.8), 1)
    assert (found.low, found.high) == pytest.approx((0.668, 0.888), abs=1e-3)


@pytest.mark.parametrize("number", range(10))
def test_the_interval_contains_the_mean_of_the_minimum(number: int) -> None:
    rng = np.random.default_rng(number)
    x = rng.random((60, 3)) < rng.uniform(0.2, 0.9, (60, 1))
    found = worst_group(x, Groups.of([20, 10, 30], [1 / 3] * 3))
    minimum = np.stack([x[:20].mean(0), x[20:30].mean(0), x[30:].mean(0)]).min(0).mean()
    assert found.point == pytest.approx(minimum)
    assert 0 <= found.low <= found.point <= found.high <= 1


def test_with_five_samples_a_group_the_interval_says_that_nothing_is_known() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((500, 5)) < rng.beta(0.8, 0.2, (500, 1))
    found = worst_group(x, Groups.of([5] * 100, [0.01] * 100))
    assert found.low < 0.1
    assert found.high > 0.6


def test_the_interval_covers_the_worst_of_four_equal_groups() -> None:
    rng = np.random.default_rng(0)
    groups = Groups.of([50] * 4, [0.25] * 4)
    covered = 0
    for _ in range(150):
        probability = rng.beta(2.4, 0.6, (200, 1))  # of each sample; the mean is .8
        found = worst_group(rng.random((200, 3)) < probability, groups)
        covered += found.low <= 0.8 <= found.high
    assert covered / 150 >= 0.95

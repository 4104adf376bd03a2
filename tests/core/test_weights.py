"""Sampling weights: published values, and groups drawn equally often."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from debiasbench.core.weights import equal_groups, published_weight, upweight_conflict


@pytest.mark.parametrize(
    ("ratio", "weight"),
    [(0.005, 80), (0.01, 50), (0.02, 30), (0.05, 10), (0.0501, 10), (0.5, 0.5), (0.2, 2), (0, 1)],
)
def test_published_weights_and_a_third_of_the_draws_elsewhere(ratio: float, weight: float) -> None:
    assert published_weight(ratio) == pytest.approx(weight)


def test_upweighting_draws_conflicting_samples_as_often_as_asked() -> None:
    conflict = torch.tensor([True, False, False, True])
    assert upweight_conflict(conflict, 7.0).tolist() == [7, 1, 1, 7]


def test_equal_groups_are_drawn_equally_often_and_absent_ones_do_not_matter() -> None:
    weights = equal_groups(torch.tensor([0, 0, 0, 2]))
    assert weights.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])


@pytest.mark.slow
def test_weights_are_importable_without_torch() -> None:
    code = "import sys, debiasbench.core.weights; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

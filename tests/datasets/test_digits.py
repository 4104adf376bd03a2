"""Digits: counts, colours and alignment as described."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from debiasbench.core.data import Task
from debiasbench.datasets.digits import Digits, _digits
from debiasbench.testing import check_dataset

NOWHERE = Path("nowhere")


@pytest.fixture(scope="module")
def digits() -> Task:
    return check_dataset(Digits(), NOWHERE)


def test_digits_has_every_image_of_the_source_in_one_split(digits: Task) -> None:
    sizes = {name: len(split) for name, split in digits.splits().items()}
    assert sizes == {"train": 997, "val": 300, "test": 500}
    assert digits.shape.input == (3, 28, 28)


def test_the_images_are_those_that_scikit_learn_returns() -> None:
    images, target = _digits()
    from sklearn.datasets import load_digits  # takes seconds: not in every worker

    expected = load_digits()
    assert (images == expected.images).all()
    assert (target == expected.target).all()


def test_five_percent_of_each_class_conflict_in_training(digits: Task) -> None:
    conflict = digits.conflict(digits.train)
    per_class = digits.train.y.bincount()
    assert conflict.sum() == sum(round(0.05 * n) for n in per_class.tolist()) == 50


@pytest.mark.parametrize("split", ["val", "test"])
def test_validation_and_test_have_equal_groups(digits: Task, split: str) -> None:
    counts = digits.group_counts(digits.splits()[split])  # type: ignore[index]
    assert counts.unique().numel() == 1
    assert counts.sum() == len(digits.splits()[split])  # type: ignore[index]


def test_conflicting_samples_have_all_other_colours() -> None:
    task = Digits(ratio=1.0).load(NOWHERE)
    assert (task.train.y != task.train.bias).all()
    assert (task.group_counts(task.train).view(10, 10) > 0).sum() > 80


@pytest.mark.parametrize("ratio", [0.0, 0.005, 0.2])
def test_the_ratio_is_the_fraction_of_conflicting_samples(ratio: float) -> None:
    task = Digits(ratio=ratio).load(NOWHERE)
    share = task.conflict(task.train).float().mean().item()
    assert share == pytest.approx(ratio, abs=0.006)


def test_validation_and_test_are_the_same_at_every_ratio(digits: Task) -> None:
    other = Digits(ratio=0.2).load(NOWHERE)
    for name in ("val", "test"):
        first, second = digits.splits()[name], other.splits()[name]  # type: ignore[index]
        assert torch.equal(first.x, second.x)
        assert torch.equal(first.bias, second.bias)


def test_the_split_seed_changes_splits_and_colours() -> None:
    assert Digits(split_seed=1).load(NOWHERE).fingerprint() != Digits().load(NOWHERE).fingerprint()


def test_digits_have_a_second_bias_with_its_own_ratio(digits: Task) -> None:
    task = check_dataset(Digits(ratio=0.05, place_ratio=0.2), NOWHERE)
    assert len(task.biases) == 100
    colour_of, place_of = task.train.bias // 10, task.train.bias % 10
    assert (colour_of != task.train.y).float().mean() == pytest.approx(0.05, abs=0.01)
    assert (place_of != task.train.y).float().mean() == pytest.approx(0.2, abs=0.01)
    either = (colour_of != task.train.y) | (place_of != task.train.y)
    assert torch.equal(task.conflict(task.train), either)
    assert torch.equal(task.train.y, digits.train.y)
    for value in (task.test.bias // 10, task.test.bias % 10):  # both are balanced in every class
        assert (task.test.y * 10 + value).bincount(minlength=100).unique().tolist() == [5]

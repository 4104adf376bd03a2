"""Samples are scaled and normalised once, in the layout in which they are stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from debiasbench.core.prepare import Prepare
from debiasbench.testing import toy_task
from debiasbench.training.placed import Placed

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("mean", "std"),
    [(None, None), ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)), ((0.4, 0.5, 0.6), None)],
)
def test_prepared_samples_are_those_of_the_formula(mean: Any, std: Any) -> None:
    task = replace(toy_task(), mean=mean, std=std)
    x = task.train.x[:7]
    expected = x.float() / 255
    if mean is not None:
        expected = expected - torch.tensor(mean).view(1, 3, 1, 1)
    if std is not None:
        expected = expected / torch.tensor(std).view(1, 3, 1, 1)
    assert torch.equal(Prepare(task)(x), expected)  # type: ignore[arg-type]
    assert torch.equal(x, task.train.x[:7])


def test_what_an_augmentation_returns_is_not_changed() -> None:
    kept = torch.ones(2, 3, 8, 8)
    task = replace(toy_task(), augment=lambda _x, _rng: kept, mean=(0.5,) * 3)
    prepared = Prepare(task)(task.train.x[:2], torch.Generator())
    assert torch.equal(prepared, kept - 0.5)  # type: ignore[arg-type]
    assert bool((kept == 1).all())


@pytest.mark.parametrize("index", [torch.tensor([3, 0, 3]), slice(2, 5)])
def test_images_with_the_channels_last_are_the_same_images_and_stay_in_that_layout(
    index: Any,
) -> None:
    task = replace(toy_task(), mean=(0.4, 0.5, 0.6))
    x: Any = task.train.x
    placed = Placed(x, CPU, channels_last=True)
    taken: Any = placed.take(index)
    assert torch.equal(taken, x[index])
    prepared: Any = Prepare(task)(taken)
    for images in (taken, prepared):
        assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(prepared, Prepare(task)(x[index].clone()))  # type: ignore[arg-type]
    assert torch.equal(placed.take(index), x[index])  # type: ignore[arg-type]

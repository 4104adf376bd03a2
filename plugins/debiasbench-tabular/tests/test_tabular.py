"""The data set and the model pass the checks of debiasbench."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from debiasbench_tabular.dataset import BreastCancer
from debiasbench_tabular.model import TabularResNet

from debiasbench import Shape
from debiasbench.testing import check_dataset, check_model


def test_the_data_set_is_sound_and_its_clinic_is_a_shortcut_in_training_only() -> None:
    task = check_dataset(BreastCancer())
    assert [len(split) for split in task.splits().values()] == [329, 80, 160]
    assert task.conflict(task.train).float().mean().item() == pytest.approx(0.05, abs=0.01)
    assert task.conflict(task.test).float().mean().item() == pytest.approx(0.5, abs=0.02)
    clinic = task.train.x[:, 30]
    assert torch.equal(clinic, 2.0 * task.train.bias - 1)


def test_the_ratio_sets_the_conflicting_fraction() -> None:
    task = BreastCancer(ratio=0.0).load(Path())
    assert not task.conflict(task.train).any()


@pytest.mark.parametrize("depth", [0, 2])
def test_the_model_is_sound(depth: int) -> None:
    check_model(TabularResNet(depth=depth, width=16), Shape(input=(31,), classes=2))

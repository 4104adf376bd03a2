"""What an objective returns is checked: a wrong loss, and a batch that BatchNorm cannot use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from debiasbench import Method, Model, Shape
from debiasbench.common.errors import OptionError, PluginError
from debiasbench.core.objective import CrossEntropy
from debiasbench.core.settings import Training
from debiasbench.methods.erm import ERM
from debiasbench.testing import toy_task
from tests.running import fit
from tests.training.stages import Flat


@dataclass(frozen=True)
class Normalised(Model):
    """A network with BatchNorm over positions, or over single values."""

    over: str = "values"

    def build(self, shape: Shape) -> nn.Module:
        pooled = nn.AdaptiveAvgPool2d(1)
        layers = [nn.Conv2d(3, 4, 3), pooled, nn.BatchNorm2d(4)]
        if self.over == "positions":
            layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), pooled]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, shape.classes))


@dataclass(frozen=True)
class Linear(Model):
    """One linear layer."""

    def build(self, shape: Shape) -> nn.Module:
        return Flat()


@pytest.mark.parametrize(
    ("loss", "complaint"),
    [
        (lambda loss: loss.expand(16), r"it has the shape \(16,\), must be a scalar: return its"),
        (lambda loss: loss[None], r"it has the shape \(1,\), must be a scalar"),
        (lambda loss: None, "it is NoneType, must be a tensor"),
        (lambda loss: loss.item(), "it is float, must be a tensor"),
        (lambda loss: loss.detach(), "it depends on no weight that is trained"),
    ],
)
def test_a_loss_that_cannot_be_minimised_is_an_error_that_names_the_stage(
    loss: Any, complaint: str
) -> None:
    class Wrong(CrossEntropy):
        def forward(self, batch: Any) -> Any:
            return loss(super().forward(batch))

    @dataclass(frozen=True)
    class Made(Method):
        def fit(self, lab: Any) -> Any:
            return lab.train(Wrong(lab.model()), name="first")

    expected = rf"method 'm' raised TypeError: the loss of stage 'first' \(Wrong\).*{complaint}"
    with pytest.raises(PluginError, match=expected):
        fit(toy_task(), Made(), model=Linear(), training=Training(epochs=1), owner="method 'm'")


def test_a_batch_of_one_that_batchnorm_cannot_normalise_asks_for_a_larger_batch() -> None:
    with pytest.raises(OptionError, match=r"1 sample in stage 'train': use --batch-size 2 or more"):
        fit(toy_task(), ERM(), model=Normalised(), training=Training(batch_size=1, epochs=1))


def test_a_batch_of_one_is_trained_on_if_batchnorm_has_several_positions() -> None:
    training = Training(batch_size=1, epochs=1)
    trained = fit(toy_task(samples=8), ERM(), model=Normalised("positions"), training=training)
    assert trained.checkpoints["last"].epoch == 1


def test_a_stage_of_one_sample_asks_for_more_samples() -> None:
    @dataclass(frozen=True)
    class One(Method):
        def fit(self, lab: Any) -> Any:
            return lab.train(lab.model(), name="one", subset=torch.tensor([3]))

    with pytest.raises(OptionError, match="in stage 'one': train on more samples"):
        fit(toy_task(), One(), model=Normalised(), training=Training(epochs=1))

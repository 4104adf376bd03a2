"""The head of a network is found, and used only if it alone decides the logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from debiasbench import Method, Model, Shape
from debiasbench.common.errors import OptionError
from debiasbench.core.head import check_head, last_linear
from debiasbench.core.settings import Training
from debiasbench.methods.dfr import DFR
from debiasbench.models.zoo import Timm
from debiasbench.testing import check_model, toy_task
from tests.running import fit_whole

FAST = Training(epochs=1, batch_size=32, lr=0.05)


class TwoHeads(nn.Module):
    """Predicts the mean of two classifiers, as distilled transformers do."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(shape.features, 8), nn.ReLU())
        self.one, self.two = nn.Linear(8, shape.classes), nn.Linear(8, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        return (self.one(features) + self.two(features)) / 2


class Skips(nn.Module):
    """Does not use its last layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.used = plain(shape)
        self.spare = nn.Linear(8, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.used(x)
        return out


def second_head_at_0(shape: Shape) -> nn.Module:
    """The other classifier contributes only once it is trained."""
    network = TwoHeads(shape)
    nn.init.zeros_(network.one.weight)
    return network


class Scaled(nn.Sequential):
    """Multiplies its outputs."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2.0


def plain(shape: Shape) -> nn.Sequential:
    layers = [nn.Flatten(), nn.Linear(shape.features, 8), nn.ReLU(), nn.Linear(8, shape.classes)]
    return nn.Sequential(*layers)


def convolutional(shape: Shape) -> nn.Sequential:
    """A 1x1 convolution classifies the pooled features."""
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Conv2d(8, shape.classes, 1), nn.Flatten())


def pooled_late(shape: Shape) -> nn.Sequential:
    """A 1x1 convolution classifies each position; the logits are averages over positions."""
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, shape.classes, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def cut_off(shape: Shape) -> nn.Sequential:
    """The outputs of the 1x1 convolution are cut off at 0, as those of SqueezeNet are."""
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, shape.classes, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def normalised(shape: Shape) -> nn.Sequential:
    network = plain(shape)
    nn.utils.parametrizations.weight_norm(network[3])
    return network


def tied(shape: Shape) -> nn.Sequential:
    """The last layer is used as a hidden layer too."""
    square = nn.Linear(shape.classes, shape.classes)
    return nn.Sequential(nn.Flatten(), nn.Linear(shape.features, shape.classes), square, square)


def sharing(shape: Shape) -> nn.Sequential:
    """The last layer has the weight of another layer."""
    network = nn.Sequential(
        nn.Flatten(),
        nn.Linear(shape.features, shape.classes),
        nn.Linear(shape.classes, shape.classes),
        nn.Linear(shape.classes, shape.classes),
    )
    network[3].weight = network[2].weight
    return network


def unbiased(shape: Shape) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(shape.features, shape.classes, bias=False))


@dataclass(frozen=True)
class Built(Model):
    """A network that a function builds."""

    how: Any = plain

    def build(self, shape: Shape) -> nn.Module:
        network: nn.Module = self.how(shape)
        return network


class Counting:
    """A trainer that must not be called."""

    def train(self, stages: Any) -> Any:
        raise AssertionError("a stage was trained")


SHAPE = toy_task().shape
SAMPLES = torch.rand(4, *SHAPE.input, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("how", [plain, convolutional, pooled_late, unbiased])
def test_a_linear_layer_or_1x1_convolution_that_makes_the_logits_is_a_head(
    how: Callable[[Shape], nn.Module],
) -> None:
    network = how(SHAPE)
    head = last_linear(network)
    assert head is not None
    before = {name: value.clone() for name, value in network.state_dict().items()}
    check_head(network, head, SAMPLES, linear=True)
    assert network.training
    assert all(torch.equal(value, before[n]) for n, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (TwoHeads, r"two \(Linear\) does not decide the logits alone"),
        (second_head_at_0, r"two \(Linear\) does not decide the logits alone"),
        (lambda s: Scaled(*plain(s)), r"the logits are not the outputs of 3 \(Linear\)"),
        (cut_off, r"the logits are not the outputs of 2 \(Conv2d\)"),
        (normalised, r"the weight of 3 \(ParametrizedLinear\) is computed"),
        (tied, "is used 2 times for a prediction"),
        (sharing, "another layer shares the weight of 3"),
        (Skips, "is used 0 times for a prediction"),
    ],
)
def test_dfr_refuses_before_training_a_network_whose_logits_the_head_does_not_make_alone(
    how: Callable[[Shape], nn.Module], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.running.Sequential", lambda *_: Counting())
    with pytest.raises(OptionError, match=rf"{reason}.*Use another --model"):
        fit_whole(toy_task(), DFR(), model=Built(how), training=FAST)


@pytest.mark.parametrize("how", [convolutional, unbiased])
def test_dfr_refits_a_convolution_and_a_layer_without_bias(
    how: Callable[[Shape], nn.Module],
) -> None:
    fitted = fit_whole(toy_task(), DFR(retrains=1), model=Built(how), training=FAST)
    network = fitted.trained.objective.network
    head = last_linear(network)
    assert head is not None
    assert head.bias is not None
    check_head(network, head, SAMPLES, linear=True)


def test_features_are_refused_if_two_heads_decide_and_given_if_the_logits_are_scaled() -> None:
    shapes: list[tuple[int, ...]] = []

    @dataclass(frozen=True)
    class Reads(Method):
        def fit(self, lab: Any) -> Any:
            network = lab.model()
            shapes.append(lab.features(network, "train").shape)
            return network

    fit_whole(toy_task(), Reads(), model=Built(lambda s: Scaled(*plain(s))), training=FAST)
    assert shapes == [(160, 8)]
    with pytest.raises(OptionError, match="such as a second classifier"):
        fit_whole(toy_task(), Reads(), model=Built(TwoHeads), training=FAST)


def test_features_of_a_convolution_are_averages_over_positions() -> None:
    @dataclass(frozen=True)
    class Compares(Method):
        def fit(self, lab: Any) -> Any:
            network = lab.model()
            head = lab.head(network)
            logits = lab.features(network, "train") @ head.weight.flatten(1).T + head.bias
            torch.testing.assert_close(logits, lab.predict(network, "train"))
            return network

    fit_whole(toy_task(), Compares(), model=Built(pooled_late), training=FAST)


def test_a_distilled_transformer_of_timm_has_no_single_head() -> None:
    network = Timm("deit_tiny_distilled_patch16_224").build(Shape((3, 32, 32), 2))
    head = last_linear(network)
    assert head is not None
    with pytest.raises(OptionError, match=r"head_dist.*such as a second classifier"):
        check_head(network, head, torch.rand(4, 3, 32, 32), linear=True)


def test_a_model_whose_classifier_is_a_convolution_passes_check_model() -> None:
    check_model(Built(convolutional), SHAPE)

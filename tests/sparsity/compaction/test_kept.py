"""Compaction keeps every channel that may change an output."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.sparsity.params import maskable
from tests.sparsity.compaction.nets import (
    IMAGES,
    apply,
    built,
    check,
    cnn,
    mlp,
    noise,
    shapes,
    sparsify,
    zero_padded_average,
)


def test_active_weights_of_value_0_stay() -> None:
    net = built(cnn)
    for p in maskable(net).values():
        p.data.zero_()
    small = check(net, {}, *IMAGES)
    assert small.parameters == small.original_parameters


def test_weights_that_cancel_stay() -> None:
    net = built(lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    net[0].weight.data[1] = torch.tensor([1.0, -1.0, 2.0, -2.0])  # type: ignore[index]
    net[2].weight.data[:, 1] = torch.tensor([1.0, -1.0])  # type: ignore[index]
    small = check(net, {}, noise(5, 4))
    assert small.kept["0.weight"] == (0, 1, 2)


def test_a_constant_that_padding_makes_vary_is_kept() -> None:
    # 0 + padding is 0, but 1 averaged with padding is not constant
    net = built(zero_padded_average)
    masks = {"0.weight": torch.ones(16, 3, 3, 3, dtype=torch.bool)}
    masks["0.weight"][:8] = False
    norm: Any = net.get_submodule("1")
    norm.running_mean.zero_()
    net.get_submodule("0").bias.data.zero_()
    norm.bias.data[:8] = torch.tensor([-1.0, 1, -1, 1, -1, 1, -1, 1])  # ReLU makes 0 of -1
    small = check(net, apply(net, masks), *IMAGES)
    assert small.kept["0.weight"] == (1, 3, 5, 7, *range(8, 16))


@pytest.mark.parametrize(
    "norm",
    [
        nn.GroupNorm(2, 8),
        nn.InstanceNorm2d(8, affine=True),
        nn.BatchNorm2d(8, track_running_stats=False),
    ],
)
def test_channels_are_kept_if_a_norm_computes_statistics_from_them(norm: nn.Module) -> None:
    net = built(
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 8, 3, padding=1),
            norm,
            nn.ReLU(),
            nn.Conv2d(8, 10, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
    )
    small = check(net, sparsify(net, 0.02), *IMAGES)
    assert shapes(small.model)["2.weight"][0] == 8
    assert shapes(small.model)["5.weight"][:2] == (10, 8)
    assert shapes(small.model)["0.weight"][0] < 16


def test_layer_norm_keeps_its_features_but_hidden_units_behind_it_are_removed() -> None:
    net = built(
        lambda: nn.Sequential(
            nn.Linear(6, 12),
            nn.LayerNorm(12),
            nn.Linear(12, 40),
            nn.GELU(),
            nn.Linear(40, 12),
            nn.LayerNorm(12),
            nn.Linear(12, 5),
        )
    )
    small = check(net, sparsify(net, 0.02), noise(2, 7, 6), noise(3, 5, 6, seed=1))
    assert shapes(small.model)["0.weight"] == (12, 6)
    assert shapes(small.model)["4.weight"][0] == 12
    assert shapes(small.model)["2.weight"][0] < 20


class Twice(nn.Module):
    """One convolution called twice, and one weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.one, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.twice(F.relu(self.twice(F.relu(self.stem(x)))))).mean((2, 3))
        return self.other(F.relu(self.one(x)))


class Grouped(nn.Module):
    """Grouped convolutions that are not depthwise, and a split of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.wider = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.pairs = nn.Conv2d(12, 6, 3, padding=1, groups=3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.pairs(F.relu(self.wider(F.relu(self.stem(x))))))
        one, other = x.chunk(2, dim=1)
        return (one * other).mean((2, 3))


class Named(nn.Module):
    """Channel counts that are read from a tensor or written in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(x))
        x = F.relu(self.other(x / x.shape[1]))
        return self.head(F.adaptive_avg_pool2d(x, 1).view(-1, 6))


@pytest.mark.parametrize("kind", [Twice, Grouped, Named])
def test_operations_without_a_rule_keep_their_channels(kind: type[nn.Module]) -> None:
    net = built(kind)
    small = check(net, sparsify(net, 0.05), *IMAGES)
    assert shapes(small.model) == shapes(net)


def test_a_layer_with_a_hook_keeps_its_channels() -> None:
    net = built(mlp)
    shift = noise(30)
    net[2].register_forward_hook(lambda _layer, _inputs, y: y + shift)  # type: ignore[index]
    small = check(net, sparsify(net, 0.05), noise(4, 12))
    assert shapes(small.model)["0.weight"] == (30, 12)
    assert shapes(small.model)["3.weight"][0] < 20

"""Compaction removes every channel that masks make useless."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.core.model import Shape
from debiasbench.models.resnet import ResNet18
from debiasbench.sparsity.params import maskable
from tests.sparsity.compaction.nets import (
    IMAGES,
    Masks,
    apply,
    built,
    check,
    depthwise,
    resnet,
    shapes,
    sparsify,
)


@pytest.mark.parametrize("density", [0.1, 0.05, 0.02])
def test_a_chain_without_constants_keeps_what_lies_on_a_path_from_input_to_output(
    density: float,
) -> None:
    widths = [3, 20, 30, 40, 10]
    net = nn.Sequential(
        *(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(widths[:-1])),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(40, 10, bias=False),
    )
    net = built(lambda: net)
    masks = sparsify(net, density, seed=3)
    # by brute force: a channel is alive if the input reaches it, and read if it reaches a logit
    edges = [m.flatten(2).any(2) if m.ndim > 2 else m for m in masks.values()]
    alive, read = [[True] * 3], [[True] * 10]
    for edge in edges:
        alive.append([any(e and a for e, a in zip(row, alive[-1], strict=True)) for row in edge])
    for edge in reversed(edges):
        read.append([any(e and r for e, r in zip(col, read[-1], strict=True)) for col in edge.T])
    counts = [
        sum(map(all, zip(*pair, strict=True))) for pair in zip(alive, read[::-1], strict=True)
    ]
    counts[0], counts[-1] = 3, 10
    assert 0 < min(counts) < max(counts) < 40
    expected = sum(9 * a * b for a, b in pairwise(counts[:-1])) + counts[-2] * 10

    small = check(net, masks, *IMAGES)
    assert small.parameters == expected
    assert [len(kept) for kept in small.kept.values()] == counts[1:]


def two_convolutions(**padding: Any) -> tuple[nn.Module, Masks]:
    """Filters 1 and 2 of the first layer are empty, and nothing reads filter 3."""
    net = built(
        lambda: nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1, bias=False),
            nn.BatchNorm2d(5),
            nn.Softplus(),
            nn.Conv2d(5, 4, 3, bias=False, **padding),
        )
    )
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in maskable(net).items()}
    masks["0.weight"][1:3] = False
    masks["3.weight"][:, 3] = False
    return net, apply(net, masks)


@pytest.mark.parametrize("padding", [1, "same"])
def test_constants_become_one_channel_for_a_padded_reader(padding: int | str) -> None:
    net, masks = two_convolutions(padding=padding)
    small = check(net, masks, *IMAGES)
    assert small.kept == {"0.weight": (0, 4), "3.weight": (0, 1, 2, 3)}
    assert shapes(small.model)["0.weight"] == (3, 3, 3, 3)  # channels 0, 4 and the constant
    assert shapes(small.model)["3.weight"] == (4, 3, 3, 3)
    assert "3.bias" not in shapes(small.model)
    assert not small.masks["0.weight"][2].any()
    assert small.masks["3.weight"][:, 2].all()
    norm: Any = small.model.get_submodule("1")
    assert (norm.weight[2], norm.bias[2], norm.running_mean[2], norm.running_var[2]) == (0, 1, 0, 1)


@pytest.mark.parametrize("padding", [{}, {"padding": 1, "padding_mode": "reflect"}])
def test_constants_go_into_the_bias_without_zero_padding(padding: dict[str, Any]) -> None:
    net, masks = two_convolutions(**padding)
    small = check(net, masks, *IMAGES)
    assert shapes(small.model)["0.weight"] == (2, 3, 3, 3)
    assert shapes(small.model)["3.weight"] == (4, 2, 3, 3)
    assert shapes(small.model)["3.bias"] == (4,)


def test_constants_of_value_0_are_removed_without_a_bias() -> None:
    net, masks = two_convolutions(padding=1)
    net[1] = nn.ReLU()  # type: ignore[index]
    net[2] = nn.Identity()  # type: ignore[index]
    small = check(net, masks, *IMAGES)
    assert shapes(small.model) == {"0.weight": (2, 3, 3, 3), "3.weight": (4, 2, 3, 3)}


def test_a_channel_is_removed_if_it_is_constant_in_all_terms_of_a_sum() -> None:
    net = built(lambda: ResNet18(width=8, stem="small").build(Shape(input=(3, 28, 28), classes=10)))
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in maskable(net).items()}
    for writer in ("conv1", "layer1.0.conv2", "layer1.1.conv2"):
        masks[f"{writer}.weight"][5:] = False
    masks["conv1.weight"][0] = False  # alive nevertheless, through the blocks
    small = check(net, apply(net, masks), *IMAGES)
    for writer in ("conv1", "layer1.0.conv2", "layer1.1.conv2"):
        assert small.kept[f"{writer}.weight"] == (0, 1, 2, 3, 4)
    assert shapes(small.model)["conv1.weight"][0] == 6  # and the constant one
    assert shapes(small.model)["layer1.0.conv1.weight"] == (8, 6, 3, 3)


class Residual(nn.Module):
    """A residual stream with two readers, and a layer between them that adds to it."""

    def __init__(self, *, subtract: bool) -> None:
        super().__init__()
        self.stem, self.early = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.inner, self.writer = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.late, self.subtract = nn.Conv2d(6, 4, 3, padding=1), subtract

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        h = self.writer(F.softplus(self.inner(x)))
        y = x - h if self.subtract else x + h
        return (self.early(x) + self.late(y)).mean((2, 3))


def test_inputs_of_unread_outputs_are_removed() -> None:
    net = built(lambda: Residual(subtract=False))
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in maskable(net).items()}
    masks["late.weight"][:, 0] = False  # so row 0 of the writer is not read
    masks["inner.weight"][0] = False
    masks["writer.weight"][1:, 0] = False  # the only row that reads the constant
    small = check(net, apply(net, masks), *IMAGES)
    assert small.kept["writer.weight"] == (0, 1, 2, 3, 4, 5)  # as `early` reads channel 0
    assert shapes(small.model)["inner.weight"] == (5, 6, 3, 3)
    assert not small.masks["writer.weight"][0].any()


def test_constants_are_kept_if_no_other_constant_can_replace_them() -> None:
    # the constant channels of both sides cancel in a difference
    net = built(lambda: Residual(subtract=True))
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in maskable(net).items()}
    masks["stem.weight"][4:] = False
    masks["writer.weight"][4:] = False
    small = check(net, apply(net, masks), *IMAGES)
    assert small.kept["stem.weight"] == (0, 1, 2, 3, 4, 5)

    masks["late.weight"][:, 4:] = False  # now only `early` reads them, where they are not 0
    small = check(net, apply(net, masks), *IMAGES)
    assert small.kept["stem.weight"] == (0, 1, 2, 3)
    assert shapes(small.model)["late.weight"] == (4, 4 + 1, 3, 3)


def test_a_depthwise_channel_is_removed_if_its_kernel_is_empty() -> None:
    net = built(depthwise(padding=1))
    masks = {"3.weight": torch.ones(12, 1, 3, 3, dtype=torch.bool)}
    masks["3.weight"][[2, 7]] = False
    small = check(net, apply(net, masks), *IMAGES)
    left = tuple(c for c in range(12) if c not in (2, 7))
    assert small.kept["0.weight"] == small.kept["3.weight"] == left
    convolution: Any = small.model.get_submodule("3")
    assert convolution.groups == convolution.in_channels == convolution.out_channels == 10


@pytest.mark.parametrize(("padding", "left"), [(1, 12), (0, 8)])
def test_a_depthwise_convolution_of_a_constant_is_constant_unless_padded(
    padding: int, left: int
) -> None:
    net = built(depthwise(padding))
    masks = {"0.weight": torch.ones(12, 3, 3, 3, dtype=torch.bool)}
    masks["0.weight"][:4] = False
    net.get_parameter("1.bias").data[:4] = 1.0  # let ReLU pass the constants
    net.get_buffer("1.running_mean")[:4] = net.get_parameter("0.bias").detach()[:4]
    small = check(net, apply(net, masks), *IMAGES)
    assert len(small.kept["0.weight"]) == len(small.kept["3.weight"]) == left


def test_constants_pass_through_layers_without_a_bias() -> None:
    # 0.5 after the empty filters, a multiple of it behind the second layer, and zero padding last
    net = built(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False),
            nn.Sigmoid(),
            nn.Conv2d(6, 6, 1, bias=False),
            nn.Tanh(),
            nn.Conv2d(6, 4, 3, padding=1, bias=False),
        )
    )
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in maskable(net).items()}
    masks["0.weight"][:3] = False
    masks["2.weight"][:3, 3:] = False
    small = check(net, apply(net, masks), *IMAGES)
    assert small.kept["0.weight"] == small.kept["2.weight"] == (3, 4, 5)
    assert shapes(small.model)["2.weight"] == (4, 3, 1, 1)
    assert shapes(small.model)["4.weight"] == (4, 4, 3, 3)


class Concatenated(nn.Module):
    """Two concatenated convolutions, read by a padded one."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)
        self.reader = nn.Conv2d(10, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat((torch.tanh(self.left(x)), F.softplus(self.right(x))), 1)
        return self.reader(both).mean((2, 3))


def test_every_part_of_a_concatenation_has_its_own_constant_channel() -> None:
    net = built(Concatenated)
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in maskable(net).items()}
    masks["left.weight"][:2] = False
    masks["right.weight"][3:] = False
    small = check(net, apply(net, masks), *IMAGES)
    assert shapes(small.model)["left.weight"][0] == 2 + 1
    assert shapes(small.model)["right.weight"][0] == 3 + 1
    masks["right.weight"][:] = True
    small = check(net, masks, *IMAGES)
    assert shapes(small.model)["reader.weight"] == (4, 2 + 1 + 6, 3, 3)


def test_a_network_that_ignores_its_input_keeps_a_channel_in_every_layer() -> None:
    net = built(resnet)
    masks = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in maskable(net).items()}
    small = check(net, apply(net, masks), *IMAGES)
    assert {w.shape[0] for n, w in maskable(small.model).items() if n != "fc.weight"} == {1}
    assert shapes(small.model)["fc.weight"] == (10, 1)
    assert shapes(small.model)["conv1.weight"] == (1, 3, 7, 7)

"""Compaction takes away what masks have made useless, and nothing that an output could tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.core.model import Shape
from debiasbench.models.cnn import CNN
from debiasbench.models.resnet import ResNet18
from debiasbench.sparsity.compaction.compact import Compacted, compact
from debiasbench.sparsity.errors import CannotCompact, SparsityError
from debiasbench.sparsity.params import maskable

Masks = dict[str, Tensor]
DOUBLE = torch.float64


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def built(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Build a network in float64, with biases and statistics far from 0."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = build().double().eval()
    generator = torch.Generator().manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for t in (layer.weight, layer.bias, layer.running_mean):
                if t is not None:
                    t.data.copy_(torch.randn(t.shape, generator=generator) * 2)
            if layer.running_var is not None:
                layer.running_var.uniform_(0.2, 1.2, generator=generator)
    return net


@torch.no_grad()
def sparsify(net: nn.Module, density: float, seed: int = 0) -> Masks:
    """Mask every weight at random, and scale up what is left as sparse networks do."""
    generator, masks = torch.Generator().manual_seed(seed), {}
    for name, p in maskable(net).items():
        masks[name] = torch.rand(p.shape, generator=generator) < density
        p.mul_(masks[name]).div_(density**0.5)
    return masks


@torch.no_grad()
def apply(net: nn.Module, masks: Masks) -> Masks:
    """Let the masks hold in the network; those not given are dense."""
    for name, p in maskable(net).items():
        if name in masks:
            p.mul_(masks[name])
    return masks


@torch.no_grad()
def distance(one: nn.Module, other: nn.Module, inputs: Iterable[Tensor]) -> float:
    """Largest difference in eval mode, of outputs whose largest is taken as 1 if it exceeds 1."""
    found = []
    for x in inputs:
        a, b = one(x.clone()), other(x.clone())
        assert a.shape == b.shape
        found.append(float((a - b).abs().max() / a.abs().max().clamp_min(1)))
    return max(found)


def check(net: nn.Module, masks: Masks, *inputs: Tensor) -> Compacted:
    """Compact, hold the outputs against those of `net`, and compact again."""
    small = compact(net, masks, inputs[0])
    assert distance(net, small.model, inputs) < 1e-10
    assert small.parameters == sum(p.numel() for p in small.model.parameters())
    assert small.original_parameters == sum(p.numel() for p in net.parameters())
    weights = maskable(small.model)
    assert {n: m.shape for n, m in small.masks.items()} == {n: w.shape for n, w in weights.items()}
    assert all((weights[name][~mask] == 0).all() for name, mask in small.masks.items())

    again = compact(small.model, small.masks, inputs[0])
    assert shapes(again.model) == shapes(small.model)
    assert all(torch.equal(again.masks[name], mask) for name, mask in small.masks.items())
    assert distance(small.model, again.model, inputs) < 1e-14
    return small


def shapes(net: nn.Module) -> dict[str, torch.Size]:
    return {name: t.shape for name, t in net.state_dict().items()}


# networks


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 30), nn.BatchNorm1d(30), nn.ReLU(),
        nn.Linear(30, 20, bias=False), nn.GELU(), nn.Dropout(0.5),
        nn.Linear(20, 5),
    )  # fmt: skip


def cnn() -> nn.Module:
    return CNN(width=16).build(Shape(input=(3, 28, 28), classes=10))


def resnet() -> nn.Module:
    return ResNet18(width=8).build(Shape(input=(3, 28, 28), classes=10))


def depthwise(padding: int) -> Callable[[], nn.Module]:
    def block(inputs: int, outputs: int, stride: int, bias: bool) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, inputs, 3, stride, padding, groups=inputs, bias=bias),
            nn.BatchNorm2d(inputs), nn.ReLU6(inplace=True),
            nn.Conv2d(inputs, outputs, 1, bias=bias),
            nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True),
        ]  # fmt: skip

    return lambda: nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU6(),
        *block(12, 24, 1, bias=False), *block(24, 24, 2, bias=True), *block(24, 32, 1, bias=False),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def biased() -> nn.Module:
    """Biases, no BatchNorm, sigmoids that are not 0 at 0, every sort of padding, a wide head."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1),
        nn.Conv2d(16, 16, 3, bias=False), nn.Sigmoid(), nn.Identity(),
        nn.Conv2d(16, 16, 3, padding="same"), nn.SiLU(),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect", bias=False), nn.Tanh(),
        nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(64, 16, bias=False), nn.BatchNorm1d(16),
        nn.Linear(16, 10, bias=False),
    )  # fmt: skip


def zero_padded_average() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AvgPool2d(3, 2, padding=1),
        nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


class Branches(nn.Module):
    """Concatenation, gates, sums of three, and functions instead of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.left = nn.Conv2d(12, 12, 3, padding=1)
        self.right = nn.Conv2d(12, 12, 1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.squeeze, self.excite = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.mixed_norm = nn.BatchNorm2d(24)
        self.mix = nn.Conv2d(24, 10, 3, padding=1, bias=False)
        self.head = nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        left, right = F.silu(self.left(x)), self.norm(self.right(x)).relu()
        y = torch.add(x, left, alpha=0.5) + 0.25
        y += right
        gate = F.adaptive_avg_pool2d(y, 1)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(gate))))
        both = torch.cat([y * gate, left], dim=1)
        z = F.dropout(F.relu(self.mix(F.relu(self.mixed_norm(both)))), training=self.training)
        z = F.avg_pool2d(F.max_pool2d(z, 2), 2)
        z = z.mean((2, 3), keepdim=True)
        return self.head(z.view(z.size(0), -1))


IMAGES = (noise(2, 3, 20, 20), noise(1, 3, 29, 26, seed=1))
NETS: dict[str, Callable[[], nn.Module]] = {
    "cnn": cnn,
    "resnet": resnet,
    "depthwise": depthwise(padding=1),
    "unpadded_depthwise": depthwise(padding=0),
    "biased": biased,
    "zero_padded_average": zero_padded_average,
    "branches": Branches,
}


@pytest.mark.parametrize("density", [0.3, 0.05, 0.01, 0.002])
@pytest.mark.parametrize("name", NETS)
def test_outputs_stay_at_two_input_sizes(name: str, density: float) -> None:
    net = built(NETS[name])
    small = check(net, sparsify(net, density), *IMAGES)
    if density <= 0.01:
        assert small.parameters < 0.9 * small.original_parameters


@pytest.mark.parametrize("density", [0.3, 0.05, 0.01])
def test_outputs_of_an_mlp_stay(density: float) -> None:
    net = built(mlp)
    small = check(net, sparsify(net, density), noise(4, 12), noise(1, 12, seed=1))
    assert density == 0.3 or small.parameters < 0.7 * small.original_parameters


@pytest.mark.parametrize("name", ["cnn", "resnet", "depthwise"])
def test_outputs_of_trained_networks_stay(name: str) -> None:
    net = built(NETS[name])
    masks = sparsify(net, 0.01)
    images, labels, losses = noise(16, 3, 20, 20), torch.arange(16) % 10, []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)
    net.train()
    for _ in range(10):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        apply(net, masks)
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    small = check(net.eval(), masks, *IMAGES)
    assert small.parameters < 0.9 * small.original_parameters


# how much goes


@pytest.mark.parametrize("density", [0.1, 0.05, 0.02])
def test_a_chain_without_constants_keeps_what_lies_on_a_path_from_input_to_output(
    density: float,
) -> None:
    widths = [3, 20, 30, 40, 10]
    net = nn.Sequential(
        *(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(widths[:-1])),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 10, bias=False),
    )  # fmt: skip
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
    """Filters 1 and 2 of the first are empty, and nobody reads filter 3."""
    net = built(
        lambda: nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.Softplus(),
            nn.Conv2d(5, 4, 3, bias=False, **padding),
        )
    )  # fmt: skip
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
def test_constants_go_into_the_bias_where_no_zeros_are_padded(padding: dict[str, Any]) -> None:
    net, masks = two_convolutions(**padding)
    small = check(net, masks, *IMAGES)
    assert shapes(small.model)["0.weight"] == (2, 3, 3, 3)
    assert shapes(small.model)["3.weight"] == (4, 2, 3, 3)
    assert shapes(small.model)["3.bias"] == (4,)


def test_constants_of_value_0_go_without_a_trace() -> None:
    net, masks = two_convolutions(padding=1)
    net[1] = nn.ReLU()  # type: ignore[index]
    net[2] = nn.Identity()  # type: ignore[index]
    small = check(net, masks, *IMAGES)
    assert shapes(small.model) == {"0.weight": (2, 3, 3, 3), "3.weight": (4, 2, 3, 3)}


def test_a_channel_goes_if_it_is_constant_for_all_who_write_a_sum() -> None:
    net = built(lambda: ResNet18(width=8, stem="small").build(Shape(input=(3, 28, 28), classes=10)))
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in maskable(net).items()}
    for writer in ("conv1", "layer1.0.conv2", "layer1.1.conv2"):
        masks[f"{writer}.weight"][5:] = False
    masks["conv1.weight"][0] = False  # alive all the same, through the blocks
    small = check(net, apply(net, masks), *IMAGES)
    for writer in ("conv1", "layer1.0.conv2", "layer1.1.conv2"):
        assert small.kept[f"{writer}.weight"] == (0, 1, 2, 3, 4)
    assert shapes(small.model)["conv1.weight"][0] == 6  # and the constant one
    assert shapes(small.model)["layer1.0.conv1.weight"] == (8, 6, 3, 3)


class Residual(nn.Module):
    """A stream with two readers, and one who writes into it between them."""

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


def test_what_is_computed_for_nobody_asks_for_nothing() -> None:
    net = built(lambda: Residual(subtract=False))
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in maskable(net).items()}
    masks["late.weight"][:, 0] = False  # so row 0 of the writer is not read,
    masks["inner.weight"][0] = False
    masks["writer.weight"][1:, 0] = False  # the only one to read the constant
    small = check(net, apply(net, masks), *IMAGES)
    assert small.kept["writer.weight"] == (0, 1, 2, 3, 4, 5)  # as `early` reads channel 0
    assert shapes(small.model)["inner.weight"] == (5, 6, 3, 3)
    assert not small.masks["writer.weight"][0].any()


def test_constants_stay_where_no_other_constant_can_stand_for_them() -> None:
    # whatever both sides of a difference make of their constant channel, it is 0 behind it
    net = built(lambda: Residual(subtract=True))
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in maskable(net).items()}
    masks["stem.weight"][4:] = False
    masks["writer.weight"][4:] = False
    small = check(net, apply(net, masks), *IMAGES)
    assert small.kept["stem.weight"] == (0, 1, 2, 3, 4, 5)

    masks["late.weight"][:, 4:] = False  # now only `early` wants them, where they are not 0
    small = check(net, apply(net, masks), *IMAGES)
    assert small.kept["stem.weight"] == (0, 1, 2, 3)
    assert shapes(small.model)["late.weight"] == (4, 4 + 1, 3, 3)


def test_a_depthwise_channel_goes_if_its_kernel_is_empty() -> None:
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


def test_constants_pass_through_layers_without_a_bias_of_their_own() -> None:
    # 0.5 after the empty filters, a multiple of it behind the second layer, and zero padding last
    net = built(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.Sigmoid(),
            nn.Conv2d(6, 6, 1, bias=False), nn.Tanh(),
            nn.Conv2d(6, 4, 3, padding=1, bias=False),
        )
    )  # fmt: skip
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in maskable(net).items()}
    masks["0.weight"][:3] = False
    masks["2.weight"][:3, 3:] = False
    small = check(net, apply(net, masks), *IMAGES)
    assert small.kept["0.weight"] == small.kept["2.weight"] == (3, 4, 5)
    assert shapes(small.model)["2.weight"] == (4, 3, 1, 1)
    assert shapes(small.model)["4.weight"] == (4, 4, 3, 3)


class Concatenated(nn.Module):
    """Two convolutions side by side, read by a padded one."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)
        self.reader = nn.Conv2d(10, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat((torch.tanh(self.left(x)), F.softplus(self.right(x))), 1)
        return self.reader(both).mean((2, 3))


def test_every_part_of_a_concatenation_has_a_constant_channel_of_its_own() -> None:
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


# what stays


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


def test_what_padding_makes_of_a_constant_stays() -> None:
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
def test_channels_stay_where_a_norm_takes_its_statistics_from_them(norm: nn.Module) -> None:
    net = built(
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1),
            norm, nn.ReLU(), nn.Conv2d(8, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )
    )  # fmt: skip
    small = check(net, sparsify(net, 0.02), *IMAGES)
    assert shapes(small.model)["2.weight"][0] == 8
    assert shapes(small.model)["5.weight"][:2] == (10, 8)
    assert shapes(small.model)["0.weight"][0] < 16


def test_layer_norm_keeps_its_features_and_the_hidden_units_behind_it_go() -> None:
    net = built(
        lambda: nn.Sequential(
            nn.Linear(6, 12), nn.LayerNorm(12), nn.Linear(12, 40), nn.GELU(), nn.Linear(40, 12),
            nn.LayerNorm(12), nn.Linear(12, 5),
        )
    )  # fmt: skip
    small = check(net, sparsify(net, 0.02), noise(2, 7, 6), noise(3, 5, 6, seed=1))
    assert shapes(small.model)["0.weight"] == (12, 6)
    assert shapes(small.model)["4.weight"][0] == 12
    assert shapes(small.model)["2.weight"][0] < 20


class Twice(nn.Module):
    """One convolution in two places, and one weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.one, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.twice(F.relu(self.twice(F.relu(self.stem(x)))))).mean((2, 3))
        return self.other(F.relu(self.one(x)))


class Grouped(nn.Module):
    """Groups that are not depthwise, more channels than groups, and a split of channels."""

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
    """Numbers of channels, read off a tensor and written in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(x))
        x = F.relu(self.other(x / x.shape[1]))
        return self.head(F.adaptive_avg_pool2d(x, 1).view(-1, 6))


@pytest.mark.parametrize("kind", [Twice, Grouped, Named])
def test_what_has_no_rule_keeps_its_channels(kind: type[nn.Module]) -> None:
    net = built(kind)
    small = check(net, sparsify(net, 0.05), *IMAGES)
    assert shapes(small.model) == shapes(net)


# the ordinary network that comes out


def test_the_network_that_goes_in_is_left_as_it_is() -> None:
    net = built(resnet).train()
    masks = sparsify(net, 0.01)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    masks_before = {name: mask.clone() for name, mask in masks.items()}
    example = IMAGES[0].clone()
    small = compact(net, masks, example)
    assert net.training
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert all(torch.equal(mask, masks_before[name]) for name, mask in masks.items())
    assert torch.equal(example, IMAGES[0])
    small.model.get_parameter("conv1.weight").data.zero_()
    assert torch.equal(net.get_parameter("conv1.weight"), before["conv1.weight"])


def test_class_mode_type_and_requires_grad_stay() -> None:
    net = built(cnn).float().train()
    net[1].eval()  # type: ignore[index]
    masks = sparsify(net, 0.01)
    net[0].weight.requires_grad_(False)  # type: ignore[index]
    result = compact(net, masks, IMAGES[0].float())
    small: Any = result.model
    assert type(small) is type(net)
    assert (small.training, small[1].training, small[4].training) == (True, False, True)
    assert (small[0].weight.requires_grad, small[3].weight.requires_grad) == (False, True)
    assert {p.dtype for p in small.parameters()} == {torch.float32}
    assert small[1].num_batches_tracked.dtype == torch.int64
    assert distance(net.eval(), small.eval(), [IMAGES[0].float()]) < 1e-5
    F.cross_entropy(small.train()(IMAGES[0].float()), torch.tensor([0, 1])).backward()
    assert result.parameters < 0.5 * result.original_parameters


def test_a_small_network_loads_its_own_state() -> None:
    net = built(cnn)
    masks = sparsify(net, 0.01)
    small = compact(net, masks, IMAGES[0]).model
    other = compact(net, masks, IMAGES[0]).model
    for p in other.parameters():
        p.data.zero_()
    other.load_state_dict(small.state_dict())
    assert distance(small, other, IMAGES) == 0


# what is refused


def test_a_network_that_cannot_be_traced_is_refused_with_the_way_out() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(CannotCompact, match=r"cannot trace Branching: .*Write its forward without"):
        compact(Branching(), {}, noise(2, 3))


class Counting(nn.Module):
    """Computes with a number of channels that torch.fx takes for a constant."""

    def __init__(self, *, strict: bool) -> None:
        super().__init__()
        self.one, self.other, self.strict = nn.Linear(12, 30), nn.Linear(30, 5), strict

    def forward(self, x: Tensor) -> Tensor:
        if self.strict and self.one.out_features != 30:
            raise RuntimeError("there must be 30")
        return self.other(F.relu(self.one(x)) * self.one.out_features)


def test_a_forward_that_needs_its_channels_is_refused() -> None:
    net = built(lambda: Counting(strict=True))
    with pytest.raises(CannotCompact, match=r"without its dead channels: there must be 30\. Its"):
        compact(net, sparsify(net, 0.05), noise(4, 12))
    net = built(lambda: Counting(strict=False))
    with pytest.raises(CannotCompact, match=r"change by .* of the largest without its dead"):
        compact(net, sparsify(net, 0.05), noise(4, 12))


def test_a_layer_with_a_hook_keeps_its_channels() -> None:
    net = built(mlp)
    shift = noise(30)
    net[2].register_forward_hook(lambda _layer, _inputs, y: y + shift)  # type: ignore[index]
    small = check(net, sparsify(net, 0.05), noise(4, 12))
    assert shapes(small.model)["0.weight"] == (30, 12)
    assert shapes(small.model)["3.weight"][0] < 20


def test_tensors_overwritten_in_place_are_refused() -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            return self.other(x.relu_()) + x

    with pytest.raises(CannotCompact, match="one after an operation in place has overwritten it"):
        compact(Overwriting(), {}, noise(2, 4).float())

    class Adding(Overwriting):
        def forward(self, x: Tensor) -> Tensor:
            x = y = self.one(x)
            y += 1  # torch.fx sees y = y + 1
            return self.other(y) + x

    with pytest.raises(CannotCompact, match="computes something else than its forward"):
        compact(Adding(), {}, noise(2, 4).float())


def test_masks_that_do_not_fit_are_refused() -> None:
    net = built(mlp)
    everything = torch.ones(30, 12, dtype=torch.bool)
    with pytest.raises(SparsityError, match=r"Unknown weight '0.bias'.* Available: 0.weight, 3"):
        compact(net, {"0.bias": torch.ones(30, dtype=torch.bool)}, noise(4, 12))
    with pytest.raises(SparsityError, match=r"0.weight must be bool of shape \(30, 12\)"):
        compact(net, {"0.weight": everything.T}, noise(4, 12))
    with pytest.raises(SparsityError, match="must be bool"):
        compact(net, {"0.weight": everything.float()}, noise(4, 12))
    with pytest.raises(SparsityError, match=r"weights off its mask .* multiply it by the mask"):
        compact(net, {"0.weight": ~everything}, noise(4, 12))

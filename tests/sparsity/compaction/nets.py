"""Networks to compact, random masks, and the check that outputs stay the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.core.model import Shape
from debiasbench.models.cnn import CNN
from debiasbench.models.resnet import ResNet18
from debiasbench.sparsity.compaction.compact import Compacted, compact
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
    """Mask every weight at random, and scale up the active weights."""
    generator, masks = torch.Generator().manual_seed(seed), {}
    for name, p in maskable(net).items():
        masks[name] = torch.rand(p.shape, generator=generator) < density
        p.mul_(masks[name]).div_(density**0.5)
    return masks


@torch.no_grad()
def apply(net: nn.Module, masks: Masks) -> Masks:
    """Multiply weights by their masks; weights without a mask stay dense."""
    for name, p in maskable(net).items():
        if name in masks:
            p.mul_(masks[name])
    return masks


@torch.no_grad()
def distance(one: nn.Module, other: nn.Module, inputs: Iterable[Tensor]) -> float:
    """Return the largest difference of outputs, relative to the largest output above 1."""
    differences = []
    for x in inputs:
        a, b = one(x.clone()), other(x.clone())
        assert a.shape == b.shape
        differences.append(float((a - b).abs().max() / a.abs().max().clamp_min(1)))
    return max(differences)


def check(net: nn.Module, masks: Masks, *inputs: Tensor) -> Compacted:
    """Compact, compare the outputs with those of `net`, and compact again."""
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
        nn.Linear(12, 30),
        nn.BatchNorm1d(30),
        nn.ReLU(),
        nn.Linear(30, 20, bias=False),
        nn.GELU(),
        nn.Dropout(0.5),
        nn.Linear(20, 5),
    )


def cnn() -> nn.Module:
    return CNN(width=16).build(Shape(input=(3, 28, 28), classes=10))


def resnet() -> nn.Module:
    return ResNet18(width=8).build(Shape(input=(3, 28, 28), classes=10))


def depthwise(padding: int) -> Callable[[], nn.Module]:
    def block(inputs: int, outputs: int, stride: int, bias: bool) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, inputs, 3, stride, padding, groups=inputs, bias=bias),
            nn.BatchNorm2d(inputs),
            nn.ReLU6(inplace=True),
            nn.Conv2d(inputs, outputs, 1, bias=bias),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(inplace=True),
        ]

    return lambda: nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU6(),
        *block(12, 24, 1, bias=False),
        *block(24, 24, 2, bias=True),
        *block(24, 32, 1, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def biased() -> nn.Module:
    """Biases, no BatchNorm, sigmoids that are not 0 at 0, several paddings, a wide last layer."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Conv2d(16, 16, 3, bias=False),
        nn.Sigmoid(),
        nn.Identity(),
        nn.Conv2d(16, 16, 3, padding="same"),
        nn.SiLU(),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect", bias=False),
        nn.Tanh(),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 16, bias=False),
        nn.BatchNorm1d(16),
        nn.Linear(16, 10, bias=False),
    )


def zero_padded_average() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, padding=1),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


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

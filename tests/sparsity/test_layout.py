"""Fan-in is fan-in in every layout: patterns and dead units agree with what a layer computes.

A layer is restated densely by its response to basis inputs: one input channel that is 1 at one
position gives, for each output channel, the weights that this output reads from that input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.sparsity import (
    GMP,
    SNFS,
    GraNet,
    RigL,
    SparseTraining,
    SparsityError,
    SRigL,
    Static,
    Updater,
)

KERNEL = 3
BUILD: dict[str, Callable[[], Any]] = {
    "convolution": lambda: nn.Conv2d(8, 12, KERNEL, padding=2),
    "grouped": lambda: nn.Conv2d(8, 12, KERNEL, padding=2, groups=2),
    "depthwise": lambda: nn.Conv2d(8, 8, KERNEL, padding=2, groups=8),
    "depthwise, three outputs": lambda: nn.Conv2d(4, 12, KERNEL, padding=2, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(8, 12, KERNEL, stride=2),
    "transposed, grouped": lambda: nn.ConvTranspose2d(8, 12, KERNEL, groups=2),
    "transposed, depthwise": lambda: nn.ConvTranspose2d(8, 8, KERNEL, groups=8),
}


@torch.no_grad()
def read_by_outputs(layer: Any, mask: Tensor) -> Tensor:
    """(out, in, kernel positions) bool: which weights an output reads from an input."""
    before, bias = layer.weight.clone(), layer.bias.clone()
    layer.weight.copy_(mask)
    layer.bias.zero_()
    response = layer(torch.eye(layer.in_channels)[:, :, None, None])  # (in, out, 3, 3)
    layer.weight.copy_(before)
    layer.bias.copy_(bias)
    return response.transpose(0, 1).flatten(2) != 0


def trained(layer: Any, updater: Updater, steps: int = 6) -> SparseTraining:
    last = seeded(lambda: nn.Linear(layer.out_channels, 4))
    net = nn.Sequential(layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9)
    sparse = updater.attach(net, optimizer, total_steps=steps)
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(16, layer.in_channels, 5, 5, generator=rng)
        F.cross_entropy(net(x), torch.arange(16) % 4).backward()
        optimizer.step()
    sparse.check()
    return sparse


def seeded(build: Callable[[], Any]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


@pytest.mark.parametrize("layer", BUILD)
@pytest.mark.parametrize("init", ["random", "magnitude"])
def test_constant_fan_in_gives_every_output_as_many_weights(layer: str, init: Any) -> None:
    conv = seeded(BUILD[layer])
    updater = RigL(
        0.4,
        every="1",
        pattern="constant_fan_in",
        distribution="uniform",
        init=init,
        exclude=("4.*",),
    )
    sparse = trained(conv, updater)
    fan_in = read_by_outputs(conv, sparse.masks["0.weight"]).flatten(1).sum(1)
    assert sparse.updates > 0
    assert len(set(fan_in.tolist())) == 1
    assert fan_in[0] == round(0.4 * conv.weight.numel() / conv.out_channels)


@pytest.mark.parametrize("layer", ["convolution", "grouped", "transposed", "transposed, grouped"])
def test_n_of_m_holds_in_consecutive_inputs_of_every_output(layer: str) -> None:
    conv = seeded(BUILD[layer])
    sparse = trained(conv, RigL(0.5, every="1", pattern="2:4", exclude=("4.*",)))
    read = read_by_outputs(conv, sparse.masks["0.weight"])
    blocks = read.unflatten(1, (-1, 4)).sum(2)  # (out, blocks, positions)
    assert sparse.updates > 0
    outputs = conv.out_channels // conv.groups
    for output, counts in enumerate(blocks):
        own = counts.chunk(conv.groups)[output // outputs]
        assert (own == 2).all()
        assert counts.sum() == own.sum()


def test_n_of_m_refuses_an_output_that_reads_too_few_inputs() -> None:
    with pytest.raises(SparsityError, match=r"0\.weight has 1 inputs, which is not a multiple"):
        trained(BUILD["transposed, depthwise"](), RigL(0.5, pattern="2:4", exclude=("4.*",)))


@pytest.mark.parametrize(
    "updater",
    [
        lambda: GMP(0.5, pattern="2:4"),
        lambda: GraNet(0.5, pattern="constant_fan_in"),
        lambda: SNFS(0.5, pattern="constant_fan_in"),
        lambda: SRigL(0.5, pattern="2:4"),
        lambda: SRigL(0.5, pattern="unstructured"),
    ],
)
def test_an_algorithm_that_does_not_keep_to_a_pattern_refuses_it(
    updater: Callable[[], Updater],
) -> None:
    with pytest.raises(SparsityError, match=r"pattern=.*: leave it"):
        updater()


@pytest.mark.parametrize("layer", BUILD)
def test_dead_units_are_outputs_that_read_nothing_and_inputs_that_nothing_reads(
    layer: str,
) -> None:
    conv = seeded(BUILD[layer])
    rng = torch.Generator().manual_seed(0)
    mask = torch.rand(conv.weight.shape, generator=rng) < 0.2
    mask[:3] = False
    if mask.shape[1] > 1:
        mask[:, -1] = False
    net = nn.Sequential(conv)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    sparse = Static(0.5).attach(net, optimizer, total_steps=1, masks={"0.weight": mask})
    read = read_by_outputs(conv, mask).any(2)  # (out, in)
    (stats,) = sparse.stats().layers
    assert stats.dead_outputs == int((~read.any(1)).sum()) > 0
    assert stats.dead_inputs == int((~read.any(0)).sum()) > 0


@pytest.mark.parametrize("layer", BUILD)
def test_srigl_gives_each_output_that_it_keeps_the_same_fan_in(layer: str) -> None:
    conv = seeded(BUILD[layer])
    with torch.no_grad():  # outputs 0 and 1 have little use
        own = conv.weight.transpose(0, 1) if conv.transposed else conv.weight
        own[:2] *= 1e-4
    updater = SRigL(
        0.4, every="1", distribution="uniform", init="magnitude", ablation=0.6, drop_fraction=0.5
    )
    sparse = trained(conv, updater)
    fan_in = read_by_outputs(conv, sparse.masks["0.weight"]).flatten(1).sum(1)
    kept = fan_in[fan_in > 0]
    assert len(set(kept.tolist())) == 1
    per_output = conv.weight.numel() // conv.out_channels
    assert 0 < int(kept.sum()) <= round(0.4 * per_output) * conv.out_channels


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "updater",
    [
        SRigL(0.5, every="1", init="magnitude", distribution="uniform", ablation=0.5),
        RigL(0.5, every="1", init="magnitude", distribution="er", pattern="constant_fan_in"),
        RigL(0.5, every="1", init="magnitude", pattern="1:2"),
    ],
)
def test_a_transposed_convolution_is_treated_as_the_convolution_that_computes_the_same(
    updater: Updater, groups: int
) -> None:
    transposed = seeded(lambda: nn.ConvTranspose2d(8, 12, 1, groups=groups))
    plain = nn.Conv2d(8, 12, 1, groups=groups)
    with torch.no_grad():
        parts = transposed.weight.chunk(groups)
        plain.weight.copy_(torch.cat([part.transpose(0, 1) for part in parts]))
        plain.bias.copy_(transposed.bias)
    seen = [
        read_by_outputs(conv, trained(conv, updater).masks["0.weight"])
        for conv in (transposed, plain)
    ]
    assert torch.equal(*seen)

"""Compaction changes no output, and gives an ordinary network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from debiasbench.sparsity.compaction.compact import compact
from tests.sparsity.compaction.nets import (
    IMAGES,
    NETS,
    apply,
    built,
    check,
    cnn,
    distance,
    mlp,
    noise,
    resnet,
    sparsify,
)


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


def test_the_original_network_is_not_changed() -> None:
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

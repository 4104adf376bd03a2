"""Check the networks of a model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from debiasbench.common.randomness import seeded
from debiasbench.core.model import Model, Shape
from debiasbench.testing.findings import warn_slow
from debiasbench.training.doubt import Doubts

if TYPE_CHECKING:
    from torch import Tensor


SHAPE = Shape(input=(3, 32, 32), classes=5)


def check_model(model: Model, shape: Shape = SHAPE) -> None:
    """Check that networks of a model fit `shape`, train, have a head and are reproducible.

    Warns if a GPU could not replay training steps with them, which makes these slower.
    """
    with seeded(0):
        network = model.build(shape)
    with seeded(0):
        again = model.build(shape)
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), (
            f"Equal seeds gave different initial values of {name}"
        )
    x = torch.rand(4, *shape.input, generator=torch.Generator().manual_seed(0))
    logits = network(x)
    assert logits.shape == (4, shape.classes), (
        f"The network returned shape {tuple(logits.shape)} for 4 samples, "
        f"must be (4, {shape.classes})"
    )
    logits.sum().backward()
    unused = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused, f"Parameters without gradient: {', '.join(unused)}"
    outputs = len(model.head(network).weight)
    assert outputs == shape.classes, (
        f"head() returned a layer with {outputs} outputs, must be {shape.classes}, "
        "the number of classes"
    )
    doubts = Doubts([[network]])
    for turn in range(3):
        network.zero_grad()
        step = partial(_forward_and_backward, network, x)
        if turn == 0:
            step()  # it may allocate what later ones use
        else:
            doubts.observe(0, (len(x),), step)
    if doubts.reason:
        warn_slow(str(model), doubts.reason)


def _forward_and_backward(network: nn.Module, x: Tensor) -> None:
    network(x).sum().backward()

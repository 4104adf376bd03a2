"""Further linear heads on the features of a network, beside its own head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from debiasbench.core.head import Head


def linear_beside(head: Head, outputs: int, rng: torch.Generator) -> nn.Linear:
    """Return a new linear layer with `outputs` outputs for the features (B, D) that `head` reads.

    It is on the device of `head` and begins as `nn.Linear` does, uniform within 1 / sqrt(D). `rng`:
    such as `lab.generator("heads")`.
    """
    inputs = head.weight[0].numel()
    # without the initialisation of torch, which draws from the global generator
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-(inputs**-0.5), inputs**-0.5, generator=rng)
    return layer.to(head.weight)


def logits_of(layer: Head, features: Tensor) -> Tensor:
    """Return the outputs (N, O) of a head for features (N, D) of `lab.features`, on the CPU."""
    weight = layer.weight.detach().flatten(1).to(features)
    bias = None if layer.bias is None else layer.bias.detach().to(features)
    return F.linear(features, weight, bias)

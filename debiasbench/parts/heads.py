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

    It is on the device of `head`, has a bias if `head` has one, and begins as `nn.Linear` does:
    uniform within 1 / sqrt(D). `rng`: such as `lab.generator("heads")`.
    """
    inputs = head.weight[0].numel()
    layer = nn.Linear(inputs, outputs, bias=head.bias is not None, device="meta")
    layer.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-(inputs**-0.5), inputs**-0.5, generator=rng)
    return layer.to(head.weight)


def logits_of(layer: nn.Linear | Head, features: Tensor) -> Tensor:
    """Return (N, outputs) logits, on the CPU, of a head for features (N, D) of `lab.features`."""
    weight = layer.weight.detach().flatten(1).to(features)
    return F.linear(
        features, weight, None if layer.bias is None else layer.bias.detach().to(features)
    )


@torch.no_grad()
def set_head(head: Head, weight: Tensor, bias: Tensor | None) -> None:
    """Replace the weights of `head`, in place: `weight` (C, D), `bias` (C,) or None."""
    head.weight.copy_(weight.view_as(head.weight))
    if head.bias is not None and bias is not None:
        head.bias.copy_(bias)

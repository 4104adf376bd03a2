"""Replace the weights of a network's head by those of another linear classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from debiasbench.core.head import Head


@torch.no_grad()
def set_head(head: Head, weight: Tensor, bias: Tensor) -> None:
    """Replace the weight (C, D) and the bias (C,) of a head, in place; it gets a bias if needed."""
    head.weight.copy_(weight.view_as(head.weight))
    if head.bias is None:
        head.bias = nn.Parameter(head.weight.new_zeros(len(weight)))
    head.bias.copy_(bias)

"""What weights and gradients are multiplied by to set the inactive ones to 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn


class Factors:
    """The masks of some weights; on an accelerator, copies of them in the type of the weights.

    There, `torch._foreach_mul_` multiplies all weights in one kernel if types and strides of both
    lists are equal (`can_use_fast_route` in ATen/native/ForeachUtils.h). With bool masks it starts
    one kernel for each weight, which takes a noticeable part of the step of a small network. The
    price is the memory of one more copy of the weights.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
        self._masks = list(masks.values())
        self._factors = [
            mask if p.is_cpu else torch.empty_like(p, requires_grad=False).copy_(mask)
            for p, mask in zip(weights.values(), masks.values(), strict=True)
        ]

    def multiply(self, values: Sequence[Any]) -> None:
        """Multiply one tensor for each weight in place; None is left out.

        The host does not wait for the device, and only tensors change: a graph may replay this.
        """
        pairs = [(v, f) for v, f in zip(values, self._factors, strict=True) if v is not None]
        if pairs:
            torch._foreach_mul_([v for v, _ in pairs], [f for _, f in pairs])

    def follow(self) -> None:
        """Note, in place, that masks have changed."""
        for factor, mask in zip(self._factors, self._masks, strict=True):
            if factor is not mask:
                factor.copy_(mask)

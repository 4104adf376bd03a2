"""What an updater sees of one weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from debiasbench.sparsity.topology import keyed_generator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Layer:
    """One weight as an updater sees it; all tensors have shape (out, in / groups, *kernel).

    This is the shape of the weight of a linear layer or convolution; that of a transposed
    convolution is stored otherwise. Row o holds the weights that output o reads, its fan-in.
    """

    name: str
    weight: Tensor
    mask: Tensor  # bool
    active: int  # ones in `mask`
    budget: int  # ones at the start
    gradient: Tensor | None  # where the updater `reads` it and the loss depends on the weight
    state: Mapping[str, Any]  # the optimizer's state of this weight
    explored: Tensor  # bool: active at any time so far
    last: bool  # whether it is the last layer of the network
    dense: bool  # whether it stays dense
    seed: int
    step: int

    def random(self) -> Tensor:
        """Return numbers in [0, 1) that depend on the seed, the step and the name alone.

        They are drawn on the device of the weight, so nothing is copied: equal after every restart
        and on every CPU. An accelerator draws other numbers than a CPU does, and may draw others
        than another model of accelerator does.
        """
        device = self.weight.device
        rng = keyed_generator(self.seed, self.step, self.name, device=device)
        return torch.rand(self.weight.shape, generator=rng, device=device)

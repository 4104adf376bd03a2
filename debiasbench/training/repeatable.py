"""`Repeatable`: a computation on tensors that a graph of the device can repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from debiasbench.common.randomness import Randomness


class Repeatable(Protocol):
    """A computation on tensors that is repeated; see `debiasbench.training.step.Step`."""

    random: Randomness

    def compute(self) -> None:
        """Compute, without Python state that changes and without waiting for the device."""

    def changed(self) -> Sequence[Tensor]:
        """Return all tensors that `compute` changes."""

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """The generators that `compute` draws from, without the global ones."""

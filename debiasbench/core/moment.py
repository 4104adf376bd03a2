"""`Moment`: when in a stage a batch is used."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moment:
    """When in a stage a batch is used, as tensors that change in place while steps are replayed.

    `before`: () int64, steps of earlier epochs. `turn`: (1,) int64, steps of this epoch before the
    batch. `number`: () int64, epochs before this one. `steps`: steps of the whole stage.
    """

    before: Tensor
    turn: Tensor
    number: Tensor
    steps: int

    @classmethod
    def begin(cls, device: torch.device) -> Moment:
        """Return the beginning of a stage."""
        zero = torch.zeros((), dtype=torch.long, device=device)
        return cls(zero, zero[None], zero, steps=1)

    @property
    def step(self) -> Tensor:
        """Number of steps before this one, () int64."""
        return self.before + self.turn[0]

    @property
    def epoch(self) -> Tensor:
        """Number of epochs before this one, () int64."""
        return self.number.clone()

    @property
    def progress(self) -> Tensor:
        """Fraction of the steps of the stage that came before, () float32 in [0, 1)."""
        return self.step / self.steps

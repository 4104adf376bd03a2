"""The position in a stage: epoch, step, losses; and the check that losses are finite."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from debiasbench.common.errors import TrainingFailed

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class Position:
    """The position in a stage that is being trained."""

    epoch: int = 0
    batch: int = 0  # steps taken in this epoch
    step: int = 0
    samples: int = 0
    last_loss: float | None = None  # of the previous epoch
    losses: Tensor = field(default_factory=lambda: torch.empty(0))  # of this epoch's steps
    counted: int = 0  # samples whose FLOPs were counted
    seconds: float = 0.0  # before the last restart

    def begin(self, epoch: int, steps: int, device: torch.device) -> None:
        """Begin an epoch, or continue one after `self.batch` of its steps."""
        losses = torch.empty(steps, device=device)
        losses[: self.batch] = self.losses[: self.batch].to(device)
        self.epoch, self.losses = epoch, losses

    def advance(self, samples: int) -> None:
        """Count a step on `samples` samples."""
        self.step, self.batch, self.samples = self.step + 1, self.batch + 1, self.samples + samples

    def end_epoch(self, stage: str) -> float:
        """End an epoch; return its mean loss.

        Raises `TrainingFailed` if one of its losses is not finite.
        """
        self.last_loss, self.batch = self.check_finite(stage, len(self.losses)), 0
        return self.losses.double().mean().item()

    def check_finite(self, stage: str, steps: int) -> float | None:
        """Return the loss of this epoch's step number `steps`.

        Raises `TrainingFailed` if that or an earlier loss of the epoch is not finite.
        """
        values = self.losses[:steps].cpu()
        bad = (~values.isfinite()).nonzero()[:, 0]
        if len(bad) == 0:
            return values[-1].item()
        first = int(bad[0])
        before = values[first - 1].item() if first else self.last_loss
        raise TrainingFailed(stage, self.step - self.batch + first, before)

    def state_dict(self, seconds: float) -> dict[str, object]:
        """Return everything that resuming needs. `seconds`: time spent so far."""
        return {**vars(self), "losses": self.losses[: self.batch], "seconds": seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        vars(self).update(state)

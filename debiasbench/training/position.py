"""The position in a stage: epoch, step, losses; and the check that losses are finite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import TrainingFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass
class Position:
    """The position in a stage that is being trained.

    `losses`: of the steps of this epoch, (steps per epoch,) on the device; read once per epoch.
    """

    losses: Tensor
    epoch: int = 0
    batch: int = 0  # steps taken in this epoch
    step: int = 0
    samples: int = 0
    last_loss: float | None = None  # of the previous epoch
    counted: int = 0  # samples whose FLOPs were counted
    seconds: float = 0.0  # before the last restart

    def advance(self, samples: int) -> None:
        """Count a step on `samples` samples."""
        self.step, self.batch, self.samples = self.step + 1, self.batch + 1, self.samples + samples

    def end_epoch(self, stage: str, losses: Tensor) -> float:
        """End an epoch; return its mean loss.

        `losses`: those of its steps, on the host. Raises `TrainingFailed` if one is not finite.
        """
        self.last_loss, self.batch = self._checked(stage, losses), 0
        return losses.double().mean().item()

    def check_finite(self, stage: str, steps: int) -> float:
        """Return the loss of this epoch's step number `steps`.

        Raises `TrainingFailed` if that or an earlier loss of the epoch is not finite.
        """
        return self._checked(stage, self.losses[:steps].cpu())

    def _checked(self, stage: str, values: Tensor) -> float:
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
        taken = state["losses"]
        self.losses[: len(taken)].copy_(taken)
        vars(self).update({**state, "losses": self.losses})

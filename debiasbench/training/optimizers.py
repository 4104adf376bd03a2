"""The optimizers and learning-rate schedules of `Training`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.optim import lr_scheduler

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn
    from torch.optim import Optimizer

    from debiasbench.core.settings import Training


def make_optimizer(
    parameters: Iterable[nn.Parameter], training: Training, *, tensor_lr: bool = False
) -> Optimizer:
    """Return the optimizer of `training` for the parameters that require gradients.

    On an accelerator it is fused: one kernel updates all parameters. `tensor_lr`: whether the
    learning rate is a tensor on the parameters' device, which schedules change in place, so that a
    captured step uses the current value.
    """
    trainable = [p for p in parameters if p.requires_grad]
    lr: Any = training.lr
    if tensor_lr and trainable:
        lr = torch.tensor(training.lr, device=trainable[0].device)
    decay = training.weight_decay
    fused = True if trainable and all(p.device.type != "cpu" for p in trainable) else None
    match training.optimizer:
        case "sgd":
            return torch.optim.SGD(
                trainable, lr, momentum=training.momentum, weight_decay=decay, fused=fused
            )
        case "adam":
            return torch.optim.Adam(trainable, lr, weight_decay=decay, fused=fused)
        case "adamw":
            return torch.optim.AdamW(trainable, lr, weight_decay=decay, fused=fused)


class Schedule:
    """The learning rate during a stage of `steps` steps, with `steps_per_epoch` in an epoch."""

    def __init__(
        self, optimizer: Optimizer, training: Training, *, steps: int, steps_per_epoch: int
    ) -> None:
        self._each_step: lr_scheduler.LRScheduler | None = None
        self._on_plateau: lr_scheduler.ReduceLROnPlateau | None = None
        match training.schedule:
            case "cosine":
                self._each_step = lr_scheduler.CosineAnnealingLR(optimizer, steps)
            case "step":
                epochs = -(-steps // steps_per_epoch)
                third = max(1, -(-epochs // 3)) * steps_per_epoch
                self._each_step = lr_scheduler.StepLR(optimizer, third)
            case "plateau":
                self._on_plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=5)
            case "constant":
                pass

    def after_step(self) -> None:
        """Advance by one step."""
        if self._each_step:
            self._each_step.step()

    def after_epoch(self, val_loss: float) -> None:
        """Advance by one epoch, with the validation loss `val_loss`."""
        if self._on_plateau:
            self._on_plateau.step(val_loss)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that resuming needs."""
        schedule = self._each_step or self._on_plateau
        return schedule.state_dict() if schedule else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state, after the optimizer's state was restored."""
        schedule = self._each_step or self._on_plateau
        if schedule:
            schedule.load_state_dict(dict(state))

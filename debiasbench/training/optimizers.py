"""The optimizers and learning-rate schedules of `Training`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch.optim import Optimizer

    from debiasbench.core.settings import Training


def make_optimizer(
    parameters: Iterable[nn.Parameter], training: Training, *, tensor_lr: bool = False
) -> Optimizer:
    """Return the optimizer of `training` for the parameters that require gradients.

    On an accelerator it is fused: one kernel updates all parameters. `tensor_lr`: whether the
    learning rate is a tensor on the parameters' device, which `Schedule` changes in place, so that
    a captured step uses the current value. Then it is always fused.
    """
    trainable = [p for p in parameters if p.requires_grad]
    lr: Any = training.lr
    if tensor_lr and trainable:
        lr = torch.tensor(training.lr, device=trainable[0].device)
    decay = training.weight_decay
    on_cpu = any(p.is_cpu for p in trainable)
    fused = True if trainable and (tensor_lr or not on_cpu) else None
    adam: dict[str, Any] = {"weight_decay": decay, "fused": fused}
    if tensor_lr and fused:  # without it, torch refuses to capture a step of Adam
        adam["capturable"] = True
    match training.optimizer:
        case "sgd":
            return torch.optim.SGD(
                trainable, lr, momentum=training.momentum, weight_decay=decay, fused=fused
            )
        case "adam":
            return _quiet(torch.optim.Adam(trainable, lr, **adam))
        case "adamw":
            return _quiet(torch.optim.AdamW(trainable, lr, **adam))


def _quiet(optimizer: Optimizer) -> Optimizer:
    """Return an optimizer that may also take steps that are not captured, without a warning."""
    vars(optimizer)["_warned_capturable_if_run_uncaptured"] = True
    return optimizer


class Schedule:
    """The learning rate during a stage of `steps` steps, with `steps_per_epoch` in an epoch.

    If the optimizer's learning rate is a tensor, the schedule computes with numbers of the host and
    writes the result into the tensor, in place.
    """

    def __init__(
        self, optimizer: Optimizer, training: Training, *, steps: int, steps_per_epoch: int
    ) -> None:
        self._tensors = [g["lr"] for g in optimizer.param_groups if isinstance(g["lr"], Tensor)]
        if self._tensors:  # the schedule changes the rate of an optimizer that trains nothing
            optimizer = idle = torch.optim.SGD([nn.Parameter(torch.zeros(1))], training.lr)
        self._optimizer, self._rate = optimizer, training.lr
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
        if self._tensors:
            idle.step()  # schedules warn unless a step comes before theirs

    def after_step(self) -> None:
        """Advance by one step."""
        if self._each_step:
            self._each_step.step()
            self._write()

    def after_epoch(self, val_loss: float) -> None:
        """Advance by one epoch, with the validation loss `val_loss`."""
        if self._on_plateau:
            self._on_plateau.step(val_loss)
            self._write()

    def _write(self) -> None:
        rate = self._optimizer.param_groups[0]["lr"]
        if self._tensors and rate != self._rate:
            self._rate = rate
            for tensor in self._tensors:
                tensor.fill_(rate)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that resuming needs."""
        schedule = self._each_step or self._on_plateau
        own = {"rate": self._optimizer.param_groups[0]["lr"]} if self._tensors else {}
        return own | (schedule.state_dict() if schedule else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state, after the optimizer's state was restored."""
        schedule = self._each_step or self._on_plateau
        own = dict(state)
        if self._tensors:
            self._optimizer.param_groups[0]["lr"] = own.pop("rate")
            self._write()
        if schedule:
            schedule.load_state_dict(own)

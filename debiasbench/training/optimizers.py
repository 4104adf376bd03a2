"""The optimizers and learning-rate schedules of `Training`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from debiasbench.core.objective import ParameterGroup
from debiasbench.core.stage import OptimizerState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch.optim import Optimizer

    from debiasbench.core.objective import Objective
    from debiasbench.core.settings import Training


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    training: Training,
    *,
    groups: Sequence[ParameterGroup] = (),
    tensor_lr: bool = False,
) -> Optimizer:
    """Return the optimizer of `training` for the parameters that require gradients.

    On an accelerator it is fused: one kernel updates all parameters. `groups`: parameters with
    other settings. `tensor_lr`: whether learning rates are tensors on the parameters' device, which
    `Schedule` changes in place, so that a captured step uses the current values. Then it is always
    fused. Raises `ValueError` for groups that overlap or contain other parameters.
    """
    trainable = [p for p in parameters if p.requires_grad]
    on_cpu = any(p.is_cpu for p in trainable)
    fused = True if trainable and (tensor_lr or not on_cpu) else None
    adam: dict[str, Any] = {"fused": fused}
    if tensor_lr and fused:  # without it, torch refuses to capture a step of Adam
        adam["capturable"] = True
    grouped = _grouped(trainable, training, groups)
    if tensor_lr and trainable:
        for group in grouped:
            group["rate"] = group["lr"]  # the tensor has fewer digits
            group["lr"] = torch.tensor(group["lr"], device=trainable[0].device)
    match training.optimizer:
        case "sgd":
            sgd = torch.optim.SGD(grouped, training.lr, momentum=training.momentum, fused=fused)
            if fused and training.momentum:
                # without buffers, the fused kernel leaves new ones uninitialised if the loss scaler
                # skips the first step, and it fails if only some weights have one
                for p in trainable:
                    sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
            return sgd
        case "adam":
            return _quiet(torch.optim.Adam(grouped, training.lr, **adam))
        case "adamw":
            return _quiet(torch.optim.AdamW(grouped, training.lr, **adam))


def _grouped(
    trainable: Sequence[nn.Parameter], training: Training, groups: Sequence[ParameterGroup]
) -> list[dict[str, Any]]:
    """Return the groups of an optimizer: of parameters in no group, and the given ones."""
    members = [id(p) for group in groups for p in group.parameters if p.requires_grad]
    if len(set(members)) != len(members):
        raise ValueError("parameter_groups returned a parameter twice: it can be in one group only")
    if set(members) - {id(p) for p in trainable}:
        raise ValueError("parameter_groups returned a parameter that is not in the objective")
    others = [p for p in trainable if id(p) not in set(members)]
    found = [(others, 1.0, 1.0)] if others or not members else []
    for group in groups:
        if min(group.lr, group.weight_decay) < 0:
            raise ValueError(
                f"parameter_groups returned lr={group.lr:g}, weight_decay={group.weight_decay:g}: "
                "factors must not be negative"
            )
        if own := [p for p in group.parameters if p.requires_grad]:
            found.append((own, group.lr, group.weight_decay))
    return [
        {
            "params": parameters,
            "lr": training.lr * lr,
            "weight_decay": training.weight_decay * weight_decay,
        }
        for parameters, lr, weight_decay in found
    ]


def parameter_groups(objective: Objective) -> Sequence[ParameterGroup]:
    """Return the groups that an objective asks for, and those that its networks ask for.

    The factors of a parameter in a group of both are multiplied. Of a network in a network, the
    outer one decides.
    """
    own, inner = objective.parameter_groups(), _of_networks(objective)
    if not inner:
        return own
    factors: dict[int, tuple[float, float]] = {}
    for group in inner:
        factors |= {id(p): (group.lr, group.weight_decay) for p in group.parameters}
    members = {id(p) for group in own for p in group.parameters}
    left = [(p, *factors[id(p)]) for g in inner for p in g.parameters if id(p) not in members]
    for group in own:
        for p in group.parameters:
            lr, weight_decay = factors.get(id(p), (1.0, 1.0))
            left.append((p, group.lr * lr, group.weight_decay * weight_decay))
    merged: dict[tuple[float, float], list[nn.Parameter]] = {}
    for p, *both in left:
        merged.setdefault((both[0], both[1]), []).append(p)
    return [ParameterGroup(members, lr, decay) for (lr, decay), members in merged.items()]


def _of_networks(objective: Objective) -> list[ParameterGroup]:
    """Return the groups of all networks in an objective that have `parameter_groups`."""
    found: list[ParameterGroup] = []
    seen: set[int] = set()
    for module in objective.modules():
        wished: Any = getattr(module, "parameter_groups", None)
        if module is objective or not callable(wished):
            continue
        for group in wished():
            new = [p for p in group.parameters if id(p) not in seen]
            seen |= {id(p) for p in new}
            found.append(ParameterGroup(new, group.lr, group.weight_decay))
    return found


def optimizer_state(optimizer: Optimizer, module: nn.Module, kind: str) -> OptimizerState:
    """Return a copy of an optimizer's state by the names of parameters in `module`."""
    names = {id(p): name for name, p in module.named_parameters()}
    return OptimizerState(
        kind,
        {
            names[id(p)]: {n: v.clone() if isinstance(v, Tensor) else v for n, v in values.items()}
            for p, values in optimizer.state.items()
        },
    )


def carry_over(state: OptimizerState, optimizer: Optimizer, module: nn.Module) -> None:
    """Let an optimizer of `module` begin with a state; parameters are matched by name.

    Parameters of other names or shapes begin without a state.
    """
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, p in module.named_parameters():
        values = state.values.get(name)
        if values is None or id(p) not in trained:
            continue
        tensors = [v for v in values.values() if isinstance(v, Tensor) and v.dim()]
        if all(v.shape == p.shape for v in tensors):
            copied = {n: v.clone() if isinstance(v, Tensor) else v for n, v in values.items()}
            optimizer.state[p] = laid_out_as(p, copied)


def laid_out_as(p: Tensor, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a parameter on its device and in its layout in memory.

    Fused kernels need both, also for the count of steps, and a stored stage is loaded on the CPU.
    """
    return {name: _laid_out(p, v) if isinstance(v, Tensor) else v for name, v in values.items()}


def _laid_out(p: Tensor, value: Tensor) -> Tensor:
    if value.shape == p.shape:
        return torch.empty_like(p, requires_grad=False).copy_(value)
    return value.to(p.device)


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
        if self._tensors:  # the schedule changes the rates of an optimizer that trains nothing
            optimizer = idle = torch.optim.SGD(
                [
                    {"params": nn.Parameter(torch.zeros(1)), "lr": group["rate"]}
                    for group in optimizer.param_groups
                ],
                training.lr,
            )
        self._optimizer = optimizer
        self._each_step: list[lr_scheduler.LRScheduler] = []
        self._on_plateau: lr_scheduler.ReduceLROnPlateau | None = None
        self._warm_up(training, steps)
        match training.schedule:
            case "cosine":
                self._each_step.append(lr_scheduler.CosineAnnealingLR(optimizer, steps))
            case "linear":
                self._each_step.append(lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps))
            case "step" if training.milestones:
                at = [max(1, round(fraction * steps)) for fraction in training.milestones]
                decay = lr_scheduler.MultiStepLR(optimizer, at, training.decay)
                self._each_step.append(decay)
            case "step":
                epochs = -(-steps // steps_per_epoch)
                third = max(1, -(-epochs // 3)) * steps_per_epoch
                self._each_step.append(lr_scheduler.StepLR(optimizer, third, training.decay))
            case "plateau":
                self._on_plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=5)
            case "constant":
                pass
        self._rates = self._current()
        self._write(always=True)
        if self._tensors:
            idle.step()  # schedules warn unless a step comes before theirs

    def _warm_up(self, training: Training, steps: int) -> None:
        """Begin with a small rate that increases in equal parts, if that was asked for."""
        length = round(training.warmup * steps)
        if length > 1:
            increase = lr_scheduler.LinearLR(self._optimizer, 1 / length, 1.0, length - 1)
            self._each_step.append(increase)

    def after_step(self) -> None:
        """Advance by one step."""
        for schedule in self._each_step:
            schedule.step()
        if self._each_step:
            self._write()

    def after_epoch(self, val_loss: float) -> None:
        """Advance by one epoch, with the validation loss `val_loss`."""
        if self._on_plateau:
            self._on_plateau.step(val_loss)
            self._write()

    @property
    def _all(self) -> list[Any]:
        """All schedules of torch, of steps and of epochs."""
        return [*self._each_step, *([self._on_plateau] if self._on_plateau else [])]

    def _current(self) -> list[float]:
        return [group["lr"] for group in self._optimizer.param_groups]

    def _write(self, *, always: bool = False) -> None:
        rates = self._current()
        if self._tensors and (always or rates != self._rates):
            self._rates = rates
            for tensor, rate in zip(self._tensors, rates, strict=True):
                tensor.fill_(rate)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that resuming needs."""
        rates = self._current() if self._tensors else []
        return {"rates": rates, "schedules": [schedule.state_dict() for schedule in self._all]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state, after the optimizer's state was restored."""
        if self._tensors:
            for group, rate in zip(self._optimizer.param_groups, state["rates"], strict=True):
                group["lr"] = rate
            self._write()
        for schedule, own in zip(self._all, state["schedules"], strict=True):
            schedule.load_state_dict(own)

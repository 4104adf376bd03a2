"""Predictions and features for a split, in evaluation mode and without augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from debiasbench.common.errors import OutOfMemory, PredictionFailed
from debiasbench.common.memory import is_out_of_memory
from debiasbench.common.signals import Stop
from debiasbench.core.head import recorded
from debiasbench.core.inputs import length
from debiasbench.core.modes import evaluating
from debiasbench.sparsity import count_flops
from debiasbench.training.device import capturing
from debiasbench.training.memory import clear, describe_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from debiasbench.core.head import Head, NoHead
    from debiasbench.core.inputs import Inputs
    from debiasbench.core.objective import Objective
    from debiasbench.core.settings import AnyPrecision
    from debiasbench.core.view import View
    from debiasbench.training.execution import Execution

BATCH = 1024  # large enough that evaluation is bound by arithmetic, small enough for memory


class Predictor:
    """Evaluates modules on one device, in one precision.

    It predicts `BATCH` samples at a time, or fewer if they do not fit into memory. `stop`: a
    request ends the prediction between two batches, unless a stage is running.
    """

    def __init__(
        self,
        execution: Execution,
        precision: AnyPrecision = "auto",
        *,
        stop: Stop | None = None,
    ) -> None:
        self._execution, self._stop = execution, stop or Stop()
        self.numerics = execution.numerics(precision)
        self._batch = BATCH

    @torch.no_grad()
    def predict(self, objective: Objective, view: View) -> Tensor:
        """Return (N, C) float32 logits for a view, on the device."""
        return self._over(objective, view, lambda x: objective.predict(x).float())

    @torch.no_grad()
    def features(self, objective: Objective, head: Head | NoHead, view: View) -> Tensor:
        """Return (N, D) float32 features, the inputs of the network's head, on the device."""
        with recorded(head) as features:
            return self._over(
                objective, view, lambda x: (objective.network(x), features.pop())[1].float()
            )

    @torch.enable_grad()
    def map(
        self, objective: Objective, view: View, function: Callable[[nn.Module, Inputs], Tensor]
    ) -> Tensor:
        """Return (N, ...) values of `function(network, x)` for a view, with gradients enabled."""

        def compute(x: Inputs) -> Tensor:
            values = function(objective.network, x).detach()
            if values.shape[:1] != (length(x),):
                raise ValueError(
                    f"the function returned shape {tuple(values.shape)} for {length(x)} samples, "
                    f"must be ({length(x)}, ...)"
                )
            return values

        # smaller batches, since gradients need the activations of all layers
        return self._over(objective, view, compute, fraction=8)

    def flops(self, objective: Objective, view: View) -> tuple[float, dict[str, float]]:
        """Return the dense FLOPs of predicting one sample: the total, and by parameter name."""
        objective.to(self._execution.device)
        # with gradients, since PyTorch's fused inference paths hide operations
        with evaluating(objective), count_flops(objective) as counted:
            objective.predict(view.inputs(slice(1)))
        return counted.total, counted.by_parameter

    def _over(
        self,
        objective: Objective,
        view: View,
        compute: Callable[[Inputs], Tensor],
        fraction: int = 1,
    ) -> Tensor:
        """Return (N, ...) outputs of `compute` for a view.

        `fraction`: the usual batch size is divided by it. If memory runs out, smaller batches are
        tried.
        """
        device = self._execution.device
        self.numerics.lay_out(objective.to(device))
        while True:
            try:
                return self._by_parts(objective, view, compute, max(1, self._batch // fraction))
            except (MemoryError, RuntimeError) as error:
                # memory cannot be released while a graph is captured
                if not is_out_of_memory(error) or self._execution.team.size > 1 or capturing():
                    raise
            clear(device)
            if self._batch == 1:
                raise OutOfMemory(
                    f"Predicting a single sample needs more than {describe_memory(device)}. Use a "
                    "smaller network or another device"
                )
            self._batch //= 2

    def _by_parts(
        self, objective: Objective, view: View, compute: Callable[[Inputs], Tensor], batch: int
    ) -> Tensor:
        numerics, team = self.numerics, self._execution.team
        parts: list[Tensor] = []
        with (
            evaluating(objective),
            numerics.applied(tune=False),
            numerics.autocast(self._execution.device),
        ):
            for turn, part in enumerate(_slices(len(view), batch)):
                if team.size == 1:  # several processes must stop at the same place
                    self._stop.check(" while predicting")
                if turn % team.size == team.rank or not parts:  # the first part gives the shape
                    values = compute(numerics.laid_out(view.inputs(part)))
                    if turn % team.size != team.rank:
                        values = torch.zeros_like(values)
                else:
                    size = len(range(*part.indices(len(view))))
                    values = parts[0].new_zeros(size, *parts[0].shape[1:])
                parts.append(values)
        whole = torch.cat(parts)
        if team.size > 1 and whole.dtype == torch.bool:  # processes cannot add up bools
            return team.sum(whole.byte()).bool()
        return team.sum(whole)


def check_logits(logits: Tensor, samples: int, classes: int) -> None:
    """Check predictions of a method's network.

    Raises errors as `check_shape` does, and `PredictionFailed` for NaN. Infinite logits are
    allowed, since a class may be excluded by -inf.
    """
    check_shape(logits, samples, classes)
    if bool(logits.isnan().any()):
        raise PredictionFailed


def check_shape(logits: Tensor, samples: int, classes: int) -> None:
    """Raise `ValueError` unless the shape of predictions is (samples, classes)."""
    if logits.shape != (samples, classes):
        raise ValueError(
            f"the predictions of {samples} samples have shape {tuple(logits.shape)}, must be "
            f"({samples}, {classes}), a logit for each class"
        )


def hits(logits: Tensor, view: View, groups: int) -> Tensor:
    """Return (G,) int64 correctly classified samples per group; `view`: of a `HeldOut`."""
    correct = logits.argmax(1) == view.labels["y"]
    none = torch.zeros(groups, dtype=torch.long, device=logits.device)
    return none.index_add_(0, view.labels["group"], correct.long())


def _slices(n: int, size: int) -> Iterator[slice]:
    """Yield consecutive slices, which select samples without a copy."""
    return (slice(start, start + size) for start in range(0, n, size))

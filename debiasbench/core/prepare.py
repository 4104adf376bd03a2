"""Prepare stored samples for a network: scale, augment in training, normalise."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from debiasbench.core.inputs import mapped, tensors

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from debiasbench.core.data import Augment, Task
    from debiasbench.core.inputs import Inputs


class Prepare:
    """Scales, augments and normalises the samples of a task.

    8-bit tensors become float32 in [0, 1]; others are not scaled. Then training batches are
    augmented. Then the task's `mean` is subtracted and the result is divided by its `std`, per
    channel. Inputs that are a mapping are neither augmented nor normalised. `augment`: the
    augmentation, or None.
    """

    def __init__(self, task: Task, device: torch.device | str = "cpu") -> None:
        self.augment: Augment | None = task.augment
        dimensions = max(value.dim() for value in tensors(task.train.x).values())
        shape = [1, -1] + [1] * (dimensions - 2)
        self._mean, self._std = (
            None if values is None else torch.tensor(values, device=device).view(shape)
            for values in (task.mean, task.std)
        )

    @property
    def augments(self) -> bool:
        """Whether training batches are changed at random."""
        return self.augment is not None

    def __call__(self, x: Inputs, augment: Generator | None = None) -> Inputs:
        """Prepare samples (B, ...), in place; with a generator, also augment them at random."""
        x = mapped(_scaled, x)
        if augment is not None and self.augment is not None:
            # it may return a tensor that it keeps
            return self._normalised(self.augment(cast("Tensor", x), augment), in_place=False)
        if self._mean is None and self._std is None:
            return x
        one = cast("Tensor", x)
        return self._normalised(one, in_place=one.is_floating_point())

    def _normalised(self, x: Tensor, *, in_place: bool) -> Tensor:
        if self._mean is not None:
            x = x.sub_(self._mean) if in_place else x - self._mean
        if self._std is not None:
            x = x.div_(self._std) if in_place else x / self._std
        return x


def _scaled(x: Tensor) -> Tensor:
    """Return 8-bit samples as a float32 copy, in the same layout."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x

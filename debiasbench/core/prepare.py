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
        """Prepare samples (B, ...); with a generator, also augment them at random."""
        x = mapped(_scaled, x)
        if augment is not None and self.augment is not None:
            x = self.augment(cast("Tensor", x), augment)
        if self._mean is not None:
            x = cast("Tensor", x) - self._mean
        if self._std is not None:
            x = cast("Tensor", x) / self._std
        return x


def _scaled(x: Tensor) -> Tensor:
    return x.float().div_(255) if x.dtype == torch.uint8 else x

"""Splits on the device: what the loop, a method and the harness each see of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from debiasbench.core.data import Batch
from debiasbench.records.metrics import GroupCounts
from debiasbench.training.prefetch import Ahead, fits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from debiasbench.core.data import Split, Task


class View:
    """A split on the device, with exactly the labels that its reader may see.

    `inputs(index)` gives float samples, scaled and normalised as the task says. Samples that would
    take up too much of the device's memory stay in the host's, and are copied batch by batch.
    """

    def __init__(
        self, task: Task, split: Split, labels: Mapping[str, Tensor], device: torch.device
    ) -> None:
        self._resident = fits(split.x, device)
        self.x = split.x.to(device) if self._resident else split.x
        self._device, self._ahead = device, None if self._resident else Ahead(split.x)
        self.labels = {name: values.to(device) for name, values in labels.items()}
        self._channels = [1, -1] + [1] * (split.x.dim() - 2)
        self._mean = self._per_channel(task.mean)
        self._std = self._per_channel(task.std)
        self._augment = task.augment

    def __len__(self) -> int:
        return len(self.x)

    @property
    def augments(self) -> bool:
        """Whether training batches are changed at random."""
        return self._augment is not None

    def _per_channel(self, values: tuple[float, ...] | None) -> Tensor | None:
        if values is None:
            return None
        return torch.tensor(values, device=self._device).view(self._channels)

    def expect(self, batches: Sequence[Tensor]) -> None:
        """Prepare for batches to be asked for in this order; of use where `x` is streamed."""
        if self._ahead is not None:
            self._ahead.expect(batches)

    def inputs(self, index: Tensor | slice, augment: torch.Generator | None = None) -> Tensor:
        """(B, *input) float samples at `index`; augmented if given a generator."""
        if self._ahead is not None:
            x = self._ahead.take(index).to(self._device, non_blocking=True)
        else:
            x = self.x[index]
        if x.dtype == torch.uint8:
            x = x.float().div_(255)
        elif isinstance(index, slice) and self._resident:
            x = x.clone()  # a network may work in place, and a slice is the data itself
        if augment is not None and self._augment is not None:
            x = self._augment(x, augment)
        if self._mean is not None:
            x = x - self._mean
        if self._std is not None:
            x = x / self._std
        return x

    def batch(self, index: Tensor, more: Mapping[str, Tensor], augment: torch.Generator) -> Batch:
        """Return the training batch at `index` (B,), with the rows of `more` (N, ...) added."""
        columns = {name: values[index] for name, values in {**self.labels, **more}.items()}
        return Batch(self.inputs(index, augment), index=index, **columns)


@dataclass(frozen=True)
class HeldOut:
    """What the harness, and only it, sees of the validation or test split."""

    view: View  # labels: y, group
    aligned: Sequence[Sequence[bool]]  # (C, B)
    totals: Sequence[int]  # (G,) samples per group of this split
    train_totals: Sequence[int]  # (G,) samples per group of the training split

    @classmethod
    def of(cls, task: Task, split: Split, device: torch.device) -> HeldOut:
        """Put a split of the task on the device."""
        return cls(
            view=View(task, split, {"y": split.y, "group": split.group}, device),
            aligned=task.aligned.tolist(),
            totals=task.group_counts(split).tolist(),
            train_totals=task.group_counts(task.train).tolist(),
        )

    def counts(self, hits: Sequence[int]) -> GroupCounts:
        """Put hits per group (G,) beside what is known of the groups."""
        return GroupCounts.of(hits, self.totals, self.aligned, self.train_totals)

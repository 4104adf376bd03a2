"""Tasks on a device: samples are placed once, and views of them differ only in labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from debiasbench.core.inputs import (
    LENGTH,
    STEP,
    length,
    mapped,
    nbytes,
    readable,
    tensors,
    trimmed,
    widest,
)
from debiasbench.core.prepare import Prepare
from debiasbench.core.view import HeldOut, View
from debiasbench.training.prefetch import Prefetch, fits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.core.data import Split, SplitName, Task
    from debiasbench.core.inputs import Inputs


class Placed:
    """The samples of a split, in the device's memory if they fit, else copied by batch.

    `channels_last`: whether images are stored with the channels last, so that batches already have
    the layout in which convolutions of the device compute.
    """

    def __init__(self, x: Inputs, device: torch.device, *, channels_last: bool = False) -> None:
        self._device, self._resident, self._last = device, fits(x, device), channels_last
        self.x = mapped(self._placed, x) if self._resident else x
        self._prefetch = None if self._resident else Prefetch(x)
        self.longest = widest(x)
        self._lengths = tensors(x)[LENGTH] if self.longest else None  # on the host

    @property
    def device(self) -> torch.device:
        """The device that samples are returned on."""
        return self._device

    @property
    def resident(self) -> bool:
        """Whether all samples are in the device's memory."""
        return self._resident

    def __len__(self) -> int:
        return length(self.x)

    def expect(self, batches: Sequence[Tensor]) -> None:
        """Prepare for batches to be taken in this order; saves time if batches are copied."""
        if self._prefetch is not None:
            self._prefetch.expect(batches)

    def width(self, index: Tensor | slice) -> int:
        """Return how many values of their sequences the samples at `index` need.

        It is a multiple of `STEP`, or the longest length; 0 if the samples are no sequences.
        `index`: on the host.
        """
        if self._lengths is None:
            return 0
        needed = int(self._lengths[index].max())
        return min(self.longest, -(-needed // STEP) * STEP)

    def take(self, index: Tensor | slice, width: int = 0) -> Inputs:
        """Return stored samples (B, ...) on the device, for `Prepare`.

        `width`: see `width`; 0 takes whole sequences, or those of a slice as short as possible.
        They are copies, except slices of 8-bit tensors, which `Prepare` copies.
        """
        if isinstance(index, slice) and not width:
            width = self.width(index)
        return trimmed(self._taken(index), width, self.longest)

    def _taken(self, index: Tensor | slice) -> Inputs:
        if self._prefetch is not None:
            x = self._prefetch.take(index)
            return mapped(lambda v: v.to(self._device, non_blocking=True), x)

        def part(stored: Tensor) -> Tensor:
            if self._last and stored.dim() == 4:
                samples = stored.movedim(1, -1)[index].movedim(-1, 1)
            else:
                samples = stored[index]
            # a network may change its inputs in place, and a slice shares memory with the data
            shared = isinstance(index, slice) and samples.dtype != torch.uint8
            return samples.clone() if shared else samples

        return mapped(part, self.x)

    def _placed(self, x: Tensor) -> Tensor:
        if self._last and x.dim() == 4:
            return x.to(self._device, memory_format=torch.channels_last)
        return x.to(self._device)


class PlacedTask:
    """A task on a device; each split is placed when it is first read.

    `fingerprint`: of the task before texts were tokenised; by default that of `task`.
    """

    def __init__(self, task: Task, device: torch.device, *, fingerprint: str = "") -> None:
        self.task, self.device = task, device
        self._fingerprint = fingerprint
        self._prepare = Prepare(task, device)
        self._splits: dict[str, Placed] = {}

    def view(self, name: SplitName, level: str | None) -> View:
        """Return a split with the labels that supervision of `level` includes; None: no labels."""
        return self._view(name, visible_labels(self.task, self._split(name), level))

    def held_out(self, name: SplitName) -> HeldOut:
        """Return a split for evaluation."""
        split = self._split(name)
        return HeldOut(
            view=self._view(name, {"y": split.y, "group": split.group}),
            aligned=self.task.aligned.tolist(),
            totals=self.task.group_counts(split).tolist(),
            train_totals=self.task.group_counts(self.task.train).tolist(),
        )

    @property
    def fingerprint(self) -> str:
        """What identifies the data, whatever reads them."""
        self._fingerprint = self._fingerprint or self.task.fingerprint()
        return self._fingerprint

    @property
    def nbytes(self) -> int:
        """Total size of the samples of all splits in bytes."""
        return sum(nbytes(split.x) for split in self.task.splits().values())

    def _split(self, name: SplitName) -> Split:
        return self.task.splits()[name]

    def _view(self, name: SplitName, labels: dict[str, Tensor]) -> View:
        if name not in self._splits:
            last = self.device.type != "cpu"  # as `Numerics` has it
            self._splits[name] = Placed(
                readable(self._split(name).x), self.device, channels_last=last
            )
        placed = {label: values.to(self.device) for label, values in labels.items()}
        return View(self._splits[name], placed, self._prepare, name)


def visible_labels(task: Task, split: Split, level: str | None) -> dict[str, Tensor]:
    """Return the labels of a split that supervision of `level` includes; None: no labels."""
    if level is None:
        return {}
    labels = {"y": split.y}
    if level in {"conflict", "groups"}:
        labels["conflict"] = task.conflict(split)
    if level == "groups":
        labels |= {"group": split.group, "bias": split.bias}
    return labels

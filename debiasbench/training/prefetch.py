"""Prefetch samples that do not fit on the device: gather the next batch in main memory."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from debiasbench.core.inputs import mapped, nbytes
from debiasbench.training.device import free_memory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from debiasbench.core.inputs import Inputs

SHARE = 0.5  # largest fraction of the device's free memory for samples; networks need the rest


def fits(x: Inputs, device: torch.device) -> bool:
    """Return whether samples fit into a device's memory; warn if they do not."""
    if device.type == "cpu":  # memory-mapped samples are read when they are needed
        return True
    torch.accelerator.empty_cache()  # until then, cached memory counts as used
    memory = free_memory(device)
    if memory is None or nbytes(x) <= SHARE * memory[0]:
        return True
    warnings.warn(
        f"The samples take {nbytes(x) / 1e9:.1f} GB and {device} has {memory[0] / 1e9:.1f} GB "
        "free: the samples stay in main memory, and each batch is copied when it is needed",
        stacklevel=3,
    )
    return False


class Prefetch:
    """Gathers the next batch in pinned memory, in a thread, while the current one is used."""

    def __init__(self, x: Inputs) -> None:
        self._x = x
        self._pin = torch.accelerator.is_available()
        self._worker: ThreadPoolExecutor | None = None
        self._batches: list[Tensor] = []  # kept alive, so that no other tensor gets their ids
        self._places: dict[int, int] = {}  # id of a batch -> its place in the order
        self._order: list[Tensor] = []  # indices of each batch, on the host
        self._pending: dict[int, Future[Inputs]] = {}

    def expect(self, batches: Sequence[Tensor]) -> None:
        """Prepare for batches to be taken in this order."""
        sizes = [len(index) for index in batches]
        joined = torch.cat(list(batches)).cpu() if batches else torch.empty(0, dtype=torch.long)
        self._order = list(torch.split(joined, sizes)) if batches else []
        self._batches = list(batches)
        self._places = {id(index): place for place, index in enumerate(self._batches)}
        self._pending = {}
        self._start(0)

    def take(self, index: Tensor | slice) -> Inputs:
        """Return the samples at `index`, pinned where there is an accelerator."""
        place = self._places.get(id(index))
        if isinstance(index, slice) or place is None:
            return self._gather(index if isinstance(index, slice) else index.cpu())
        pending = self._pending.pop(place, None)
        self._start(place + 1)
        return self._gather(self._order[place]) if pending is None else pending.result()

    def _start(self, place: int) -> None:
        if place < len(self._order) and place not in self._pending:
            self._worker = self._worker or ThreadPoolExecutor(1, "debiasbench-samples")
            self._pending[place] = self._worker.submit(self._gather, self._order[place])

    def _gather(self, index: Tensor | slice) -> Inputs:
        x = mapped(lambda stored: stored[index], self._x)
        return mapped(lambda batch: batch.pin_memory(), x) if self._pin else x

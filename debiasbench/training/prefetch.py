"""Samples that do not fit on the device: gathered in the host's memory ahead of their batch."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

SHARE = 0.5  # of the device's free memory that samples may take up; networks need the rest


def fits(x: Tensor, device: torch.device) -> bool:
    """Say whether samples may lie on a device; warns if they are too many."""
    if device.type == "cpu":  # memory-mapped ones are read as they are needed anyway
        return True
    torch.accelerator.empty_cache()  # what was freed counts as taken until then
    ask = getattr(torch.get_device_module(device), "mem_get_info", None)
    if ask is None or x.nbytes <= SHARE * (free := ask(device)[0]):
        return True
    warnings.warn(
        f"The samples take {x.nbytes / 1e9:.1f} GB and {device} has {free / 1e9:.1f} GB free: they "
        "stay in main memory and are copied batch by batch",
        stacklevel=3,
    )
    return False


class Ahead:
    """Gathers the batch after the one at hand in a thread of its own, into pinned memory."""

    def __init__(self, x: Tensor) -> None:
        self._x = x
        self._pin = torch.accelerator.is_available()
        self._worker: ThreadPoolExecutor | None = None
        self._batches: list[Tensor] = []  # kept, so that no other tensor takes their ids
        self._wanted: dict[int, int] = {}  # id of a batch -> where it stands in the order
        self._order: list[Tensor] = []  # indices, on the host
        self._coming: dict[int, Future[Tensor]] = {}

    def expect(self, batches: Sequence[Tensor]) -> None:
        """Batches will be taken in this order."""
        sizes = [len(index) for index in batches]
        together = torch.cat(list(batches)).cpu() if batches else torch.empty(0, dtype=torch.long)
        self._order = list(torch.split(together, sizes)) if batches else []
        self._batches = list(batches)
        self._wanted = {id(index): at for at, index in enumerate(self._batches)}
        self._coming = {}
        self._start(0)

    def take(self, index: Tensor | slice) -> Tensor:
        """Return the samples at `index`, pinned where there is an accelerator."""
        at = self._wanted.get(id(index))
        if isinstance(index, slice) or at is None:
            return self._gather(index if isinstance(index, slice) else index.cpu())
        coming = self._coming.pop(at, None)
        self._start(at + 1)
        return self._gather(self._order[at]) if coming is None else coming.result()

    def _start(self, at: int) -> None:
        if at < len(self._order) and at not in self._coming:
            self._worker = self._worker or ThreadPoolExecutor(1, "debiasbench-samples")
            self._coming[at] = self._worker.submit(self._gather, self._order[at])

    def _gather(self, index: Tensor | slice) -> Tensor:
        x = self._x[index]
        return x.pin_memory() if self._pin else x

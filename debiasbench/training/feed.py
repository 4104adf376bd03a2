"""`Feed`: the batches of a split on the device, found by a counter that a graph can advance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from debiasbench.core.inputs import mapped, tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.core.inputs import Inputs
    from debiasbench.core.view import View


class Feed:
    """Returns the batches of an epoch; memory for them is allocated once.

    `samples`, `batches`: the largest numbers of an epoch. `largest`: samples of the largest batch.
    `ahead`: whether samples that are not on the device are gathered ahead; only one feed of a split
    can do so.
    """

    def __init__(
        self,
        view: View,
        device: torch.device,
        *,
        samples: int,
        batches: int,
        largest: int,
        ahead: bool = True,
    ) -> None:
        self.view, self._ahead = view, ahead
        self._batches: Sequence[Tensor] = ()
        self._order = torch.zeros(samples, dtype=torch.long, device=device)
        self._first = torch.zeros(batches, dtype=torch.long, device=device)  # of each batch
        self._places = torch.arange(largest, device=device)
        # by size and width: the batch, if samples are not resident
        self._copied: dict[tuple[int, int], Inputs] = {}
        self.size = 0  # samples of the loaded batch
        self.width = 0  # of its sequences, 0 if there are none

    def begin_epoch(self, batches: Sequence[Tensor], turn: int) -> None:
        """Begin an epoch of batches of sample indices, or continue with batch `turn`."""
        self._batches = batches
        order = torch.cat(list(batches))
        self._order[: len(order)].copy_(order)
        sizes = torch.tensor([0, *(len(batch) for batch in batches[:-1])])
        self._first[: len(sizes)].copy_(sizes.cumsum(0))
        if self._ahead:
            self.view.samples.expect(batches[turn:])

    @property
    def shape(self) -> tuple[int, int]:
        """Samples of the loaded batch, and the width of its sequences."""
        return self.size, self.width

    def load(self, turn: int) -> None:
        """Prepare batch `turn`; copy its samples to the device if they are not there."""
        index = self._batches[turn]
        self.size = len(index)
        self.width = self.view.samples.width(index)
        if not self.view.samples.resident:
            self._copy(self.view.samples.take(index, self.width))

    def _copy(self, batch: Inputs) -> None:
        """Copy a batch to the place where `samples` reads batches of its shape."""
        place = self._copied.setdefault(self.shape, batch)
        if place is not batch:
            for old, new in zip(tensors(place).values(), tensors(batch).values(), strict=True):
                old.copy_(new)

    def index(self, turn: Tensor) -> Tensor:
        """Return (B,) indices of batch `turn` (1,), which has the size of the loaded one."""
        first = self._first.index_select(0, turn)
        return self._order.index_select(0, first + self._places[: self.size])

    def samples(self, index: Tensor) -> Inputs:
        """Return the stored samples of the loaded batch, whose indices are `index` (B,)."""
        if self.view.samples.resident:
            return self.view.samples.take(index, self.width)
        # preparation changes real numbers in place, and a step may be computed again
        return mapped(lambda x: x.clone() if x.is_floating_point() else x, self._copied[self.shape])

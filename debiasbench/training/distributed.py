"""Several processes that train one run together, each on its part of every batch."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from debiasbench.common.processes import started_together

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from debiasbench.core.data import Batch

T = TypeVar("T")

EVERY = 10  # steps between two looks at who was asked to stop


class Team(Protocol):
    """The processes of a run. All take the same decisions; the first alone reads and writes."""

    rank: int
    size: int

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """Return the part of a batch that this process computes, and its weight in the whole."""

    def add_up(self, module: nn.Module, loss: Tensor) -> None:
        """Sum gradients and loss over all processes, and average what BatchNorm has seen."""

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes."""

    def gather(self, value: T) -> list[T]:
        """Return every process's value, in the order of ranks."""

    def tell(self, value: T) -> T:
        """Return the first process's value."""

    def any(self, step: int, *flags: bool) -> Sequence[bool]:
        """Say of each flag whether any process has it; after some steps only, False at others."""


class Alone:
    """One process."""

    rank, size = 0, 1

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """Return the batch."""
        return batch, 1.0

    def add_up(self, module: nn.Module, loss: Tensor) -> None:
        """Do nothing: they are whole."""

    def sum(self, values: Tensor) -> Tensor:
        """Return them."""
        return values

    def gather(self, value: T) -> list[T]:
        """Return it."""
        return [value]

    def tell(self, value: T) -> T:
        """Return it."""
        return value

    def any(self, step: int, *flags: bool) -> Sequence[bool]:
        """Return them."""
        return flags


class Processes:
    """Those that `torchrun` started, on one machine or several.

    A batch of B samples is cut into consecutive parts, so that one process and several see the
    same batches. BatchNorm normalises by the statistics of each part, as everywhere in
    data-parallel training.
    """

    def __init__(self) -> None:
        from torch import distributed

        self._all = distributed
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        # for flags and states of the host, which an accelerator's group does not carry; and the
        # first may wait long for a stage that another run is training
        self._hosts: Any = distributed.new_group(backend="gloo", timeout=timedelta(days=30))

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """Return part `rank` of `size`; of a batch too small for all, a sample without weight."""
        begin, end = (len(batch) * rank // self.size for rank in (self.rank, self.rank + 1))
        return batch.part(slice(begin, max(end, begin + 1))), (end - begin) / len(batch)

    def add_up(self, module: nn.Module, loss: Tensor) -> None:
        """All at once, in one message."""
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        seen = [
            buffer.div_(self.size)
            for norm in module.modules()
            if isinstance(norm, _NormBase) and norm.training
            for buffer in norm.buffers(recurse=False)
            if buffer.is_floating_point()
        ]
        tensors = [*gradients, *seen, loss]
        flat = torch.cat([t.reshape(-1) for t in tensors])
        self._all.all_reduce(flat)
        for t, summed in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            t.copy_(summed.view(t.shape))

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes."""
        self._all.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """Return every process's value, in the order of ranks."""
        values: list[T | None] = [None] * self.size
        self._all.all_gather_object(values, value, group=self._hosts)
        return values  # type: ignore[return-value]

    def tell(self, value: T) -> T:
        """Return the first process's value."""
        values = [value]
        self._all.broadcast_object_list(values, src=0, group=self._hosts)
        return values[0]

    def any(self, step: int, *flags: bool) -> Sequence[bool]:
        """Ask every tenth step, which costs little."""
        if step % EVERY:
            return [False] * len(flags)
        raised = torch.tensor(flags, dtype=torch.int32)
        self._all.all_reduce(raised, op=self._all.ReduceOp.MAX, group=self._hosts)
        return [bool(flag) for flag in raised]


@contextmanager
def joined(device: torch.device) -> Iterator[Team]:
    """Meet the processes that were started with this one; a process without any is alone."""
    if not started_together():
        yield Alone()
        return
    from torch import distributed

    distributed.init_process_group(device_id=None if device.type == "cpu" else device)
    try:
        yield Processes()
    finally:
        distributed.destroy_process_group()

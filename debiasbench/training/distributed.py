"""Several processes that train one run together, each on a part of every batch."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from debiasbench.common.errors import OptionError
from debiasbench.common.processes import started_together
from debiasbench.common.wording import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from debiasbench.core.data import Batch

T = TypeVar("T")

EVERY = 10  # steps between two checks whether a stop was requested


class Team(Protocol):
    """The processes that train a run.

    All make the same decisions. Only the first, of rank 0, reads and writes files.
    """

    rank: int
    size: int

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """Return the part of a batch that this process computes, and its fraction of the batch."""

    def add_up(self, module: nn.Module, loss: Tensor) -> None:
        """Sum gradients and loss over all processes, and average BatchNorm's statistics."""

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes."""

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of ranks."""

    def tell(self, value: T) -> T:
        """Return the value of the first process."""

    def any(self, step: int, *flags: bool) -> Sequence[bool]:
        """Return for each flag whether it is set in any process.

        This may be checked at some steps only; at all others, the result is False.
        """


class Alone:
    """A team of one process."""

    rank, size = 0, 1

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """Return the whole batch."""
        return batch, 1.0

    def add_up(self, module: nn.Module, loss: Tensor) -> None:
        """Do nothing: gradients and loss are those of the whole batch."""

    def sum(self, values: Tensor) -> Tensor:
        """Return `values`."""
        return values

    def gather(self, value: T) -> list[T]:
        """Return the value in a list."""
        return [value]

    def tell(self, value: T) -> T:
        """Return the value."""
        return value

    def any(self, step: int, *flags: bool) -> Sequence[bool]:
        """Return the flags."""
        return flags


class Processes:
    """The processes that `torchrun` started, on one or several machines.

    A batch is divided into consecutive parts, so the batches do not depend on the number of
    processes. BatchNorm normalises each part by its own statistics, as usual in data-parallel
    training.
    """

    def __init__(self) -> None:
        from torch import distributed

        self._distributed = distributed
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        # flags and Python objects are sent on the host, which an accelerator's group cannot do;
        # the timeout is long, since the first process may wait for a stage of another run
        self._hosts: Any = distributed.new_group(backend="gloo", timeout=timedelta(days=30))

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """Return part `rank` of `size`; if a part is empty, one sample with weight 0."""
        begin, end = (len(batch) * rank // self.size for rank in (self.rank, self.rank + 1))
        return batch.part(slice(begin, max(end, begin + 1))), (end - begin) / len(batch)

    def add_up(self, module: nn.Module, loss: Tensor) -> None:
        """Sum gradients and loss, and average BatchNorm's statistics, in one message."""
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        statistics = [
            buffer.div_(self.size)
            for norm in module.modules()
            if isinstance(norm, _NormBase) and norm.training
            for buffer in norm.buffers(recurse=False)
            if buffer.is_floating_point()
        ]
        tensors = [*gradients, *statistics, loss]
        flat = torch.cat([t.reshape(-1) for t in tensors])
        self._distributed.all_reduce(flat)
        for t, summed in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            t.copy_(summed.view(t.shape))

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes."""
        self._distributed.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of ranks."""
        values: list[T | None] = [None] * self.size
        self._distributed.all_gather_object(values, value, group=self._hosts)
        return values  # type: ignore[return-value]

    def tell(self, value: T) -> T:
        """Return the value of the first process."""
        values = [value]
        self._distributed.broadcast_object_list(values, src=0, group=self._hosts)
        return values[0]

    def any(self, step: int, *flags: bool) -> Sequence[bool]:
        """Return the flags that are set in any process, at every tenth step to save time."""
        if step % EVERY:
            return [False] * len(flags)
        raised = torch.tensor(flags, dtype=torch.int32)
        maximum = self._distributed.ReduceOp.MAX
        self._distributed.all_reduce(raised, op=maximum, group=self._hosts)
        return [bool(flag) for flag in raised]


@contextmanager
def joined(device: torch.device) -> Iterator[Team]:
    """Yield the team of processes that `torchrun` started; without `torchrun`, a team of one."""
    if not started_together():
        yield Alone()
        return
    from torch import distributed

    try:
        distributed.init_process_group(device_id=None if device.type == "cpu" else device)
    except ValueError as error:  # a variable is missing or wrong
        raise OptionError(
            f"The processes cannot be joined ({shortened(str(error))}). Start them with torchrun, "
            "or unset WORLD_SIZE"
        ) from error
    try:
        yield Processes()
    finally:
        distributed.destroy_process_group()

"""`Tape`: records the operations of a step on a CPU and repeats them, as a graph of a device does.

A tape has the limits of a CUDA graph: it repeats operations on the same memory with the same
numbers, and runs no Python. So it shows on any machine whether a step can be captured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as tree

from debiasbench.training.doubt import Snapshot
from debiasbench.training.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.training.repeatable import Repeatable


class NotCapturable(RuntimeError):  # noqa: N818 - the name is clear without "Error"
    """A step contains an operation that a graph cannot repeat."""


class Tape(Trace):
    """Records operations while they are executed, and repeats them."""

    def __init__(self) -> None:
        super().__init__()
        self._computations: Sequence[Repeatable] = ()
        self._recorded: list[list[tuple[Any, Any, Any, Any]]] = []

    def capture(self, computations: Sequence[Repeatable]) -> None:
        """Record the computations, and undo their effect; raises `NotCapturable`."""
        self._computations, before = computations, Snapshot(computations)
        try:
            for computation in computations:
                self._recorded.append([])
                with computation.random.active(), self:
                    computation.compute()
        finally:
            before.restore()
        if self.waits:
            raise NotCapturable(f"it waits for the device, in {self.waits[0]}")

    @torch.no_grad()
    def replay(self) -> None:
        """Repeat all operations on the same memory."""
        for computation, recorded in zip(self._computations, self._recorded, strict=True):
            with computation.random.active():
                for func, args, kwargs, outputs in recorded:
                    _write(outputs, func(*args, **kwargs))

    def execute(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Note, execute and record an operation."""
        outputs = super().execute(func, args, kwargs)
        # a view stays a view of the same memory
        if func.namespace != "profiler" and not _is_view(func):
            self._recorded[-1].append((func, args, kwargs, outputs))
        return outputs


class Recomputed:
    """A stand-in for a graph that calls `compute` again, without the Python around it."""

    def __init__(self) -> None:
        self._computations: Sequence[Repeatable] = ()

    def capture(self, computations: Sequence[Repeatable]) -> None:
        """Keep the computations."""
        self._computations = computations

    def replay(self) -> None:
        """Compute again."""
        for computation in self._computations:
            with computation.random.active():
                computation.compute()


def _write(outputs: Any, results: Any) -> None:
    """Write results to the memory of the recorded outputs."""
    for old, new in zip(tree.tree_leaves(outputs), tree.tree_leaves(results), strict=True):
        # an operation in place returns the tensor that it changed
        if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
            old.copy_(new)


def _is_view(func: Any) -> bool:
    """Return whether an operation only returns a view; constants of Python count as views."""
    returns = [r.alias_info for r in func._schema.returns]
    return bool(returns) and all(alias is not None and not alias.is_write for alias in returns)

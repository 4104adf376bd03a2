"""The route of an accelerator on a CPU, and the operations for which a host would wait there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

WAITING = {
    "aten::_local_scalar_dense",  # .item(), int(...), bool(...)
    "aten::is_nonzero",
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::bincount",
    "aten::_unique2",
    "aten::lift_fresh",  # torch.tensor(...): a copy from the host
}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
COPYING = ("tolist", "numpy", "cpu")  # methods that dispatch nothing on a CPU


class Waits(TorchDispatchMode):
    """Collects operations on tensors that a host waits for if the tensors are on an accelerator."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.seen: list[str] = []
        self._on = False
        for name in COPYING:
            monkeypatch.setattr(Tensor, name, self._counted(name), raising=False)

    def _counted(self, name: str) -> Any:
        original = getattr(Tensor, name)

        def method(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._on:
                self.seen.append(name)
            return original(tensor, *args, **kwargs)

        return method

    def __enter__(self) -> Waits:
        self._on = True
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._on = False
        super().__exit__(*error)

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = op._schema.name
        tensors = [x for x in _flat(args) if isinstance(x, Tensor)]
        by_mask = name in INDEXING and any(x.dtype == torch.bool for x in _flat(args[1]))
        moved = len({x.device for x in tensors}) > 1 or (tensors and "device" in (kwargs or {}))
        if name in WAITING or by_mask or (name in {"aten::_to_copy", "aten::copy_"} and moved):
            self.seen.append(name)
        return op(*args, **(kwargs or {}))


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        elif value is not None:
            yield value


def take_accelerator_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the sparsity library treat tensors as it would those of an accelerator."""
    monkeypatch.setattr(Tensor, "is_cpu", property(lambda _: False), raising=False)

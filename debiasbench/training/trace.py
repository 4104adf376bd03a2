"""`Trace`: notes the operations of a step, and what in it a graph of the device cannot repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

# they wait for the device, to return a value to Python or because their size depends on values
WAITING = {
    "_linalg_check_errors",
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "masked_select",
    "multinomial",
    "nonzero",
    "repeat_interleave",
    "unique_consecutive",
    "unique_dim",
}
# on a CPU, these read values without an operation
READING = {"tolist", "numpy", "item", "cpu", "__array__", "__bool__", "__float__", "__int__"}
SMALL = 64  # values of a constant that are compared


class Trace:
    """A context that notes all operations of torch inside it.

    `operations`: a description of each, with its numbers and the shapes of its tensors. `waits`:
    what waits for the device, in the order of occurrence.
    """

    def __init__(self) -> None:
        self.operations: list[str] = []
        self.waits: list[str] = []
        self._modes: list[Any] = [_Functions(self), _Operations(self)]

    def __enter__(self) -> Self:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    def execute(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Note and execute an operation."""
        name = func.overloadpacket.__name__
        if func.namespace == "profiler":
            return func(*args, **kwargs)
        if name in WAITING or _indexes_by_mask(name, args):
            self.waits.append(name)
        values = [*tree.tree_leaves(args), *tree.tree_leaves(kwargs)]
        self.operations.append(f"{func} {', '.join(_described(values, constant=name))}")
        outputs = func(*args, **kwargs)
        if name in {"_to_copy", "copy_"}:
            both = [*values, *tree.tree_leaves(outputs)]
            if len({value.device.type for value in both if isinstance(value, Tensor)}) > 1:
                self.waits.append("a copy between devices")
        return outputs


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, trace: Trace) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._trace = trace

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._trace.execute(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in READING and args and isinstance(args[0], Tensor):
            self._trace.waits.append(name)
        return func(*args, **(kwargs or {}))


def _indexes_by_mask(name: str, args: Any) -> bool:
    """Return whether an operation selects by a bool mask, so that its size depends on values."""
    if not name.startswith(("index", "_index", "_unsafe_index")) or len(args) < 2:
        return False
    masks = [
        index
        for index in (args[1] if isinstance(args[1], (list, tuple)) else [])
        if isinstance(index, Tensor) and index.dtype in {torch.bool, torch.uint8}
    ]
    # a single value is written by a mask without a selection
    writes_one = "put" in name and len(args) > 2 and args[2].numel() == 1
    return bool(masks) and not writes_one


def _described(values: Iterable[object], *, constant: str) -> Iterable[str]:
    for value in values:
        if not isinstance(value, Tensor):
            yield "generator" if isinstance(value, torch.Generator) else repr(value)
        elif constant == "lift_fresh" and value.numel() <= SMALL:  # from numbers of Python
            yield repr(value.tolist())
        else:
            yield f"{value.dtype}{tuple(value.shape)}"

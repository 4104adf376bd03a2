"""Names of modules and parameters that do not depend on wrappers.

`torch.compile`, data parallelism, activation checkpointing and weight averaging wrap a module in
another one, which adds a prefix such as `_orig_mod.` or `module.` to all names. The prefix is not
part of the network: masks, patterns and saved states must be the same with and without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PRIVATE = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
"""Names that only PyTorch's wrappers give to the module that they wrap."""

WRAPPERS = (nn.DataParallel, DistributedDataParallel, AveragedModel)
"""Wrappers that call the module that they wrap `module`, as other modules may do."""


def wrapped(module: nn.Module) -> str | None:
    """Return the name of the module that `module` wraps, None if it is no wrapper."""
    if isinstance(module, WRAPPERS):
        return "module"
    return next((name for name in PRIVATE if name in module._modules), None)


def named_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield each module once, with its name; wrappers add nothing to the names below them."""
    return _named_modules(module, "", set())


def named_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield each parameter once, with its name; wrappers add nothing to the names below them."""
    seen: set[int] = set()
    for prefix, layer in named_modules(module):
        for name, p in layer._parameters.items():
            if p is not None and id(p) not in seen:
                seen.add(id(p))
                yield joined(prefix, name), p


def joined(prefix: str, name: str) -> str:
    """Return the name of an attribute of the module `prefix`, which is "" for the network."""
    return f"{prefix}.{name}" if prefix else name


def without_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Return the names in a state dict by the same names without the prefixes of wrappers.

    Only the names are known here, so `module` counts as a wrapper where all names begin with it.
    """
    parts = {name: [p for p in name.split(".") if p not in PRIVATE] for name in names}
    while parts and all(len(p) > 1 and p[0] == "module" for p in parts.values()):
        parts = {name: p[1:] for name, p in parts.items()}
    return {".".join(p): name for name, p in parts.items()}


def _named_modules(
    module: nn.Module, prefix: str, seen: set[int]
) -> Iterator[tuple[str, nn.Module]]:
    if id(module) in seen:
        return
    seen.add(id(module))
    yield prefix, module
    inner = wrapped(module)
    for name, child in module._modules.items():
        if child is not None:
            below = prefix if name == inner else joined(prefix, name)
            yield from _named_modules(child, below, seen)

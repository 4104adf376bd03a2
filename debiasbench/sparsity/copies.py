"""Copies of a network to analyse: without wrappers, and with the tensors that its code keeps.

Besides parameters and buffers, modules keep tensors in attributes: caches that are filled in
evaluation mode, or weights that a hook computes before each forward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from debiasbench.sparsity.errors import SparsityError
from debiasbench.sparsity.names import joined, named_modules, wrapped

REGISTERED = {"_parameters", "_buffers", "_modules"}

Container = dict[Any, Any] | list[Any]


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of a network without wrappers such as `torch.compile` or data parallelism.

    Raises `SparsityError` for a layer whose weight a hook computes from parameters, as the older
    `weight_norm` and torch's pruning do: torch cannot copy it, and it cannot have a mask.
    """
    for name, module in named_modules(model):
        _check_not_computed(name, module)
    memo: dict[int, Any] = {}  # what becomes of an object in the copy, by its id
    for _, _, value in _attributes(model, REGISTERED):
        for tensor in _tensors(value):
            if not tensor.is_leaf:  # for example a kept activation
                memo[id(tensor)] = tensor.detach().clone()
    for module in reversed(list(model.modules())):  # wrappers inside wrappers first
        if inner := wrapped(module):
            memo[id(module)] = copy.deepcopy(module._modules[inner], memo)
    result: nn.Module = copy.deepcopy(model, memo)
    return result


def unwrapped_modules(model: nn.Module) -> list[nn.Module]:
    """Return the modules of a network without wrappers, in the order of its copy's modules."""
    return [module for _, module in named_modules(model) if wrapped(module) is None]


def to_float64(model: nn.Module) -> Callable[[], None]:
    """Move a network to the CPU and to float64, in place, with the tensors in its attributes.

    Return a function that gives the tensors in attributes their types and devices back; parameters
    and buffers stay as they are.
    """
    model.cpu().double()
    new: dict[int, Tensor] = {}  # by the id of the old one
    old: dict[int, Tensor] = {}  # by the id of the new one

    def convert(tensor: Tensor) -> Tensor:
        if id(tensor) not in new:
            moved = tensor.cpu().double() if tensor.is_floating_point() else tensor.cpu()
            new[id(tensor)], old[id(moved)] = moved, tensor
        return new[id(tensor)]

    def back(tensor: Tensor) -> Tensor:
        return old.get(id(tensor), tensor)

    _change(model, convert)
    return lambda: _change(model, back)


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Undo, at the end of the context, what forward passes do to attributes and to containers.

    A cache that a forward pass fills is empty again afterwards, also one that it registers as a
    buffer. Values of tensors that change in place stay changed.
    """
    before = [(container, copy.copy(container)) for container in _containers(model, REGISTERED)]
    try:
        yield
    finally:
        for container, content in before:
            container.clear()
            if isinstance(container, dict):
                container.update(content)
            else:
                container.extend(content)


def _check_not_computed(name: str, module: nn.Module) -> None:
    for attribute, value in vars(module).items():
        if isinstance(value, Tensor) and not value.is_leaf:
            if f"{attribute}_g" in module._parameters:
                remove = "torch.nn.utils.remove_weight_norm"
            elif f"{attribute}_mask" in module._buffers:
                remove = "torch.nn.utils.prune.remove"
            elif f"{attribute}_orig" in module._parameters:
                remove = "torch.nn.utils.remove_spectral_norm"
            else:
                continue
            raise SparsityError(
                f"{joined(name, attribute)} is computed by a hook from other parameters, so torch "
                f"cannot copy it. Make it a parameter first: {remove}(layer, {attribute!r})"
            )


def _change(model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Replace every tensor in attributes."""
    for container, key, value in list(_attributes(model)):
        if isinstance(value, Tensor):
            container[key] = change(value)
        elif isinstance(value, tuple) and _tensors(value):
            container[key] = tuple(change(v) if isinstance(v, Tensor) else v for v in value)


def _tensors(value: object) -> list[Tensor]:
    """Return a tensor, or the tensors in a tuple."""
    values = value if type(value) is tuple else (value,)
    return [v for v in values if isinstance(v, Tensor)]


def _attributes(model: nn.Module, more: Collection[str] = ()) -> Iterator[tuple[Any, Any, object]]:
    """Yield container, key and value for every attribute and every item of dicts and lists in it.

    `more`: names of registered attributes to include.
    """
    for container in _containers(model, more):
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in items:
            yield container, key, value


def _containers(model: nn.Module, more: Collection[str] = ()) -> Iterator[Container]:
    """Yield the attributes of all modules, and each dict and list that can be reached from them.

    `more`: names of registered attributes to include.
    """
    seen: set[int] = set()
    for module in model.modules():
        pending: list[Container] = [vars(module)]
        while pending:
            container = pending.pop()
            if id(container) in seen:
                continue
            seen.add(id(container))
            yield container
            items = container.items() if isinstance(container, dict) else enumerate(container)
            pending += [
                value
                for key, value in items
                if isinstance(value, dict | list) and (key not in REGISTERED or key in more)
            ]

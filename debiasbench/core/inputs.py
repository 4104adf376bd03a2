"""The inputs of a network: one tensor, or several named tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

from debiasbench.common.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

Inputs: TypeAlias = "Tensor | Mapping[str, Tensor]"
"""One tensor (N, ...), or a mapping of named tensors (N, ...), such as token ids and their mask."""


def is_mapping(x: Inputs) -> bool:
    """Return whether inputs are several tensors by name."""
    return not hasattr(x, "dtype")


def tensors(x: Inputs) -> dict[str, Tensor]:
    """Return all tensors by name; the name of a single tensor is ""."""
    return dict(cast("Mapping[str, Tensor]", x)) if is_mapping(x) else {"": cast("Tensor", x)}


def mapped(function: Callable[[Tensor], Tensor], x: Inputs) -> Inputs:
    """Apply a function to each tensor."""
    if is_mapping(x):
        return {name: function(value) for name, value in tensors(x).items()}
    return function(cast("Tensor", x))


def length(x: Inputs) -> int:
    """Return the number of samples."""
    return len(next(iter(tensors(x).values())))


def nbytes(x: Inputs) -> int:
    """Return the total size of all tensors in bytes."""
    return sum(value.nbytes for value in tensors(x).values())


def single(x: Inputs, purpose: str) -> Tensor:
    """Return inputs that are one tensor, as `purpose` needs; raises `DataError` for a mapping."""
    if is_mapping(x):
        raise DataError(f"{purpose} needs inputs that are one tensor, but x is a mapping")
    return cast("Tensor", x)

"""The inputs of a network: one tensor, or several named tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

from debiasbench.common.errors import DataError
from debiasbench.core.texts import Texts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

Inputs: TypeAlias = "Tensor | Mapping[str, Tensor]"
"""One tensor (N, ...), or a mapping of named tensors (N, ...), such as token ids and their mask."""

LENGTH = "length"
"""The tensor of a mapping, (N,), that says how many values of a sample's sequences are in use.

Then all tensors (N, L, ...) of the longest length L are sequences: a batch has only as many of
their values as its longest sample needs, rounded up to a multiple of `STEP`."""

STEP = 8  # widths of batches: tensor cores like it, and few different ones are captured


def is_mapping(x: Inputs | Texts) -> bool:
    """Return whether inputs are several tensors by name."""
    return not hasattr(x, "dtype") and not isinstance(x, Texts)


def tensors(x: Inputs | Texts) -> dict[str, Tensor]:
    """Return all tensors by name; the name of a single tensor is ""."""
    if isinstance(x, Texts):
        return {"utf8": x.utf8, "ends": x.ends}
    return dict(cast("Mapping[str, Tensor]", x)) if is_mapping(x) else {"": cast("Tensor", x)}


def mapped(function: Callable[[Tensor], Tensor], x: Inputs) -> Inputs:
    """Apply a function to each tensor."""
    if is_mapping(x):
        return {name: function(value) for name, value in tensors(x).items()}
    return function(cast("Tensor", x))


def length(x: Inputs | Texts) -> int:
    """Return the number of samples."""
    if isinstance(x, Texts):
        return len(x)
    return len(next(iter(tensors(x).values())))


def widest(x: Inputs) -> int:
    """Return L, the longest length of the sequences of a mapping; 0 if it has no `LENGTH`."""
    if not is_mapping(x):
        return 0
    every = tensors(x)
    if LENGTH not in every:
        return 0
    return max((v.shape[1] for v in every.values() if v.dim() > 1), default=0)


def trimmed(x: Inputs, width: int, longest: int) -> Inputs:
    """Return a batch whose sequences, of `longest` values, are cut to `width`; 0 cuts nothing."""
    if width in {0, longest}:
        return x
    return mapped(lambda v: v[:, :width] if v.dim() > 1 and v.shape[1] == longest else v, x)


def nbytes(x: Inputs | Texts) -> int:
    """Return the total size of all tensors in bytes."""
    return sum(value.nbytes for value in tensors(x).values())


def readable(x: Inputs | Texts) -> Inputs:
    """Return inputs that a network can read; raises `DataError` for texts."""
    if isinstance(x, Texts):
        raise DataError(
            "The data set has texts, and this model has no tokenizer to read them: use "
            "--model hf:NAME"
        )
    return x


def single(x: Inputs | Texts, purpose: str) -> Tensor:
    """Return inputs that are one tensor, as `purpose` needs; raises `DataError` for a mapping."""
    if is_mapping(x) or isinstance(x, Texts):
        kind = "text" if isinstance(x, Texts) else "a mapping"
        raise DataError(f"{purpose} needs inputs that are one tensor, but x is {kind}")
    return cast("Tensor", x)

"""Results that the host needs to know, copied from a device in one transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def to_host(values: Sequence[Tensor]) -> list[Any]:
    """Return the numbers in scalars and vectors, one after the other; wait for the device once.

    Types are promoted as in `torch.cat`: floats among integers may round these.
    """
    return _joined(values).tolist() if values else []


def finite_flags(tensors: Sequence[Tensor]) -> Tensor:
    """Return for each of one or more tensors (n,) int64: 1 if all its values are finite, else 0."""
    # one pass over each tensor: NaN spreads to both bounds
    bounds = [b for x in tensors for b in (x if x.numel() else x.new_zeros(1)).aminmax()]
    return _joined(bounds).view(-1, 2).isfinite().all(1).long()


def _joined(values: Sequence[Tensor]) -> Tensor:
    device = values[0].device  # parts of a network may be on several
    return torch.cat([value.flatten().to(device) for value in values])

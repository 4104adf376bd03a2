"""Masks as bits: packed for storage, and a digest that says whether two sets are equal."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


def pack(mask: Tensor) -> Tensor:
    """Bool of any shape -> uint8 (ceil(N / 8),) on the CPU; eight weights a byte."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy()))


def unpack(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo `pack`; raises `ValueError` if the bits are not those of `shape`."""
    size = math.prod(shape)
    if bits.dtype != torch.uint8 or bits.shape != (math.ceil(size / 8),):
        raise ValueError(f"{tuple(bits.shape)} {bits.dtype} is no packed mask of {tuple(shape)}")
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=size).astype(bool)).view(*shape)


def digest(masks: Mapping[str, Tensor]) -> str:
    """Return 16 hexadecimal digits that differ where masks do."""
    found = hashlib.sha256()
    for name in sorted(masks):
        found.update(f"{name}{tuple(masks[name].shape)}".encode())
        found.update(pack(masks[name]).numpy().tobytes())
    return found.hexdigest()[:16]

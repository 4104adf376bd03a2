"""Masks as bits: packed for storage, and a digest to compare two sets of masks."""

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
    """Pack a bool mask of any shape into bits: uint8 (ceil(N / 8),) on the CPU."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy()))


def unpack(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """Unpack the bits of `pack` into a mask of `shape`; raise `ValueError` if they do not fit."""
    size = math.prod(shape)
    if bits.dtype != torch.uint8 or bits.shape != (math.ceil(size / 8),):
        raise ValueError(
            f"A packed mask of shape {tuple(shape)} is uint8 {(math.ceil(size / 8),)}, not "
            f"{bits.dtype} {tuple(bits.shape)}"
        )
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=size).astype(bool)).view(*shape)


def digest(masks: Mapping[str, Tensor]) -> str:
    """Return 16 hexadecimal digits that differ if names, shapes or values of masks differ."""
    sha = hashlib.sha256()
    for name in sorted(masks):
        sha.update(f"{name}{tuple(masks[name].shape)}".encode())
        sha.update(pack(masks[name]).numpy().tobytes())
    return sha.hexdigest()[:16]

"""Recognise errors of memory that ran out."""

from __future__ import annotations

import torch

_TEXTS = (
    "DefaultCPUAllocator",
    "ALLOC_FAILED",
    "out of memory",
    "Storage size calculation overflowed",  # more bytes than a number of 64 bits can count
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a device ran out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)

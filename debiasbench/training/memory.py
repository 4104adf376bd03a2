"""The memory of a device: release unused memory, and describe the memory."""

from __future__ import annotations

import gc

import torch

from debiasbench.training.device import free_memory


def clear(device: torch.device) -> None:
    """Release unused memory."""
    gc.collect()
    if device.type != "cpu":
        torch.accelerator.empty_cache()


def describe_memory(device: torch.device) -> str:
    """Return a text such as "80.0 GB of memory, of which 3.1 GB are free"."""
    memory = free_memory(device)
    if memory is None:
        return "the available memory"
    free, total = memory
    return f"{total / 1e9:.1f} GB of memory, of which {free / 1e9:.1f} GB are free"

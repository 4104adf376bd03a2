"""Randomness is an argument: every number comes from the run's seed and what it is for."""

from __future__ import annotations

from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def derive(seed: int, *purpose: str | int) -> int:
    """Return a seed in [0, 2**63) for one purpose; equal arguments give equal seeds everywhere."""
    key = "\x1f".join(map(str, (seed, *purpose))).encode()
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let code that only knows torch's global generator (initialisation, dropout) draw from `seed`.

    The global generators of the surrounding program, on every device, are put back afterwards.
    """
    accelerator = (
        torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    )
    devices = list(range(torch.accelerator.device_count())) if accelerator else []
    kind = {"device_type": accelerator.type} if accelerator else {}
    with torch.random.fork_rng(devices, **kind):
        if devices:
            torch.manual_seed(seed)
        else:  # the same, but torch would also keep a stack trace for every kind of device
            torch.default_generator.manual_seed(seed)
        yield

"""Seeds and generators, derived from the seed of a run and a purpose."""

from __future__ import annotations

import random
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def derive(seed: int, *purpose: str | int) -> int:
    """Return a seed in [0, 2**63) for one purpose.

    Equal arguments give equal seeds on all machines.
    """
    key = "\x1f".join(map(str, (seed, *purpose))).encode()
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python inside the context.

    For code that takes no generator, such as initialisation and dropout. The states of the global
    generators, those of all devices included, are restored afterwards.
    """
    accelerator = (
        torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    )
    devices = list(range(torch.accelerator.device_count())) if accelerator else []
    kind = {"device_type": accelerator.type} if accelerator else {}
    outside = global_state()
    with torch.random.fork_rng(devices, **kind):
        if devices:
            torch.manual_seed(seed)
        else:  # the same, but torch would also keep a stack trace for every kind of device
            torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            set_global_state(outside)


def global_state() -> dict[str, Any]:
    """Return the states of the global generators of NumPy and Python, as plain values."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, cached],
    }


def set_global_state(state: Mapping[str, Any]) -> None:
    """Set the states that `global_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *others = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *others))

"""Random numbers for corruptions: each image has its own generator."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from debiasbench.datasets._corruptions.arrays import Array


@dataclass(frozen=True)
class Draws:
    """Random numbers for B images, from one generator per image."""

    generators: tuple[np.random.Generator, ...]

    @classmethod
    def of(cls, seed: int, name: str, index: Tensor) -> Draws:
        """Make the generators of (B,) images; the key is seed, corruption and image number."""
        digest = blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
        key = int.from_bytes(digest, "big")
        return cls(
            tuple(
                np.random.Generator(np.random.Philox(key=np.array([key, i], dtype=np.uint64)))
                for i in index.tolist()
            )
        )

    def normal(self, *shape: int) -> Array:
        """Draw (B, *shape) from the standard normal distribution."""
        return np.stack([g.standard_normal(shape, dtype=np.float32) for g in self.generators])

    def uniform(self, low: float, high: float, *shape: int) -> Array:
        """Draw (B, *shape) from [low, high)."""
        unit = np.stack([g.random(shape, dtype=np.float32) for g in self.generators])
        drawn: Array = unit * np.float32(high - low) + np.float32(low)
        return drawn

    def choice(self, count: int) -> npt.NDArray[np.int64]:
        """Draw (B,) integers from 0 to count - 1."""
        return np.array([g.integers(count) for g in self.generators])

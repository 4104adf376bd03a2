"""Images as float arrays in [0, 1]: their type, their size, and the conversion to bytes."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.floating[Any]]

SIZE = 32  # pixels, height and width of every image


def to_bytes(x: Array) -> npt.NDArray[np.uint8]:
    """Clip to [0, 1] and round to grey levels of 0 to 255."""
    levels: npt.NDArray[np.uint8] = np.rint(255 * x.clip(0, 1)).astype(np.uint8)
    return levels

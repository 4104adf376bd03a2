"""Corruptions that lose detail: JPEG compression and pixelation."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from debiasbench.datasets._corruptions.arrays import SIZE, Array, to_bytes
from debiasbench.datasets._corruptions.draws import Draws

if TYPE_CHECKING:
    from collections.abc import Callable

JPEG = (80, 65, 58, 50, 40)  # by severity, quality


def jpeg(x: Array, severity: int, draws: Draws) -> Array:
    """Save the image as JPEG with Pillow and read it again."""

    def compressed(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=JPEG[severity - 1])
        return Image.open(file)

    return _by_pillow(x, compressed)


PIXELATE = (0.95, 0.9, 0.85, 0.75, 0.65)  # by severity, fraction of rows and columns that is kept


def pixelate(x: Array, severity: int, draws: Draws) -> Array:
    """Average the image to fewer pixels, then enlarge them to the original size."""
    side = int(SIZE * PIXELATE[severity - 1])
    box = Image.Resampling.BOX
    return _by_pillow(x, lambda image: image.resize((side, side), box).resize((SIZE, SIZE), box))


def _by_pillow(x: Array, change: Callable[[Image.Image], Image.Image]) -> Array:
    """Change (B, 3, H, W) images one by one with Pillow."""
    images = to_bytes(x).transpose(0, 2, 3, 1)  # (B, H, W, 3)
    changed = np.stack([np.asarray(change(Image.fromarray(image))) for image in images])
    return changed.transpose(0, 3, 1, 2).astype(np.float32) / 255

"""Operations on grey layers: Gaussian smoothing, zoom and motion blur."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from debiasbench.datasets._corruptions.arrays import SIZE, Array


def smooth(layer: Array, sigma: float, *, mode: str = "nearest", truncate: float = 4) -> Array:
    """Smooth each of (B, H, W) by a Gaussian of `sigma` pixels, cut off at `truncate` sigma."""
    result: Array = ndimage.gaussian_filter(layer, (0, sigma, sigma), mode=mode, truncate=truncate)
    return result


def zoom_in(layer: Array, zoom: float) -> Array:
    """Magnify the centre of (B, 32, 32) bilinearly; zoom >= 1."""
    crop = int(np.ceil(SIZE / zoom))
    large = round(crop * zoom)
    first, trim = (SIZE - crop) // 2, (large - SIZE) // 2
    at = (np.arange(SIZE) + trim) * ((crop - 1) / (large - 1))  # (32,) pixels of the crop
    low = np.minimum(at.astype(np.int64), crop - 2)
    weight = (at - low).astype(np.float32)
    low += first
    rows = layer[:, low] * (1 - weight)[:, None] + layer[:, low + 1] * weight[:, None]
    result: Array = rows[:, :, low] * (1 - weight) + rows[:, :, low + 1] * weight
    return result


def motion_blur(layer: Array, radius: int, sigma: float, degrees: Array) -> Array:
    """Blur each of (B, H, W) along its own direction, as ImageMagick does.

    `degrees`: (B,), clockwise from the right. The kernel is half a Gaussian of 2 * radius + 1
    pixels; beyond the border, rows and columns repeat the border pixels.
    """
    radians = np.deg2rad(degrees.astype(np.float64))[:, None]  # (B, 1)
    image = np.arange(len(layer))[:, None, None]
    pixel = np.arange(SIZE)
    blurred = np.zeros_like(layer)
    for distance, weight in enumerate(half_gaussian(radius, sigma)):
        row = np.rint(distance * np.sin(radians)).astype(np.int64) + pixel  # (B, H)
        column = np.rint(distance * np.cos(radians)).astype(np.int64) + pixel  # (B, W)
        row, column = row.clip(0, SIZE - 1), column.clip(0, SIZE - 1)
        blurred += weight * layer[image, row[:, :, None], column[:, None, :]]
    return blurred


def half_gaussian(radius: int, sigma: float) -> Array:
    """Return (2 * radius + 1,) decreasing weights that sum to 1."""
    weights = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2)
    normalised: Array = (weights / weights.sum()).astype(np.float32)
    return normalised

"""Spatter: drops of water or mud on the lens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from debiasbench.datasets._corruptions.arrays import SIZE, Array
from debiasbench.datasets._corruptions.draws import Draws
from debiasbench.datasets._corruptions.layers import smooth

# by severity: mean, standard deviation and smoothing of the noise, its threshold, and the opacity
# of water or the smoothing of mud
SPATTER = (
    (0.62, 0.1, 0.7, 0.7, 0.5),
    (0.65, 0.1, 0.8, 0.7, 0.5),
    (0.65, 0.3, 1, 0.69, 0.5),
    (0.65, 0.1, 0.7, 0.69, 0.6),
    (0.65, 0.1, 0.5, 0.68, 0.6),
)
MUDDY = 4  # the first severity with mud instead of water
WATER = np.array([175, 238, 238], dtype=np.float32) / 255
MUD = np.array([63, 42, 20], dtype=np.float32) / 255

FARTHEST = 20  # pixels; larger distances to an edge count as this one
WEAK_EDGE, STRONG_EDGE = 50, 150  # grey levels of Sobel's gradient, as |dx| + |dy|
_SOBEL = np.array([[[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]], dtype=np.float32)
_RELIEF = np.array([[[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]], dtype=np.float32)  # light from a corner


def spatter(x: Array, severity: int, draws: Draws) -> Array:
    """Add drops of water (severities 1 to 3) or mud (4 and 5)."""
    mean, deviation, smoothing, threshold, amount = SPATTER[severity - 1]
    liquid = smooth(mean + deviation * draws.normal(SIZE, SIZE), smoothing)  # (B, H, W)
    liquid = np.where(liquid < threshold, 0, liquid)
    if severity < MUDDY:
        return x + WATER[:, None, None] * (amount * water(liquid))[:, None]
    cover = smooth((liquid > 0).astype(np.float32), amount)  # (B, H, W)
    cover = np.where(cover < 0.8, 0, cover)[:, None]  # (B, 1, H, W)
    return x * (1 - cover) + MUD[:, None, None] * cover


def water(liquid: Array) -> Array:
    """Shade (B, H, W) liquid, which is zero where dry, by the distance to edges; in [0, 1]."""
    distance = np.stack([_distance(edge) for edge in edges(np.floor(255 * liquid))])  # (B, H, W)
    levels = ndimage.uniform_filter(distance, (1, 3, 3), mode="mirror").astype(np.int64)
    relief = ndimage.correlate(equalise(levels), _RELIEF, mode="mirror").clip(0, 255)
    shade = liquid * ndimage.uniform_filter(relief, (1, 3, 3), mode="mirror")  # (B, H, W)
    maximum = shade.max(axis=(1, 2), keepdims=True)
    shaded: Array = shade / np.where(maximum > 0, maximum, 1)
    return shaded


def edges(grey: Array) -> npt.NDArray[np.bool_]:
    """Find Canny edges in (B, H, W) grey levels: strong ridges, and weak ones connected to them."""
    across = ndimage.correlate(grey, _SOBEL, mode="nearest")
    down = ndimage.correlate(grey, _SOBEL.transpose(0, 2, 1), mode="nearest")
    gradient = abs(across) + abs(down)  # (B, H, W)
    # the neighbour in the direction of the gradient, rounded to an eighth of a turn
    eighth = np.tan(np.pi / 8)
    column = (abs(across) > eighth * abs(down)).astype(np.int64)
    row = (abs(down) > eighth * abs(across)).astype(np.int64)
    diagonal = (row * column).astype(bool)
    row = np.where(diagonal & (across * down < 0), -row, row)
    padded = np.pad(gradient, ((0, 0), (1, 1), (1, 1)))
    image, y, x = np.indices(gradient.shape, sparse=True)
    ahead = padded[image, y + 1 + row, x + 1 + column]
    behind = padded[image, y + 1 - row, x + 1 - column]
    # of two equal neighbours one is kept, except on diagonals: OpenCV's rule
    ridge = (gradient > behind) & np.where(diagonal, gradient > ahead, gradient >= ahead)
    strong, weak = ridge & (gradient > STRONG_EDGE), ridge & (gradient > WEAK_EDGE)
    connected: npt.NDArray[np.bool_] = ndimage.binary_propagation(
        strong, structure=np.ones((1, 3, 3)), mask=weak
    )
    return connected


def _distance(edge: npt.NDArray[np.bool_]) -> Array:
    """Return the distance of each pixel of one (H, W) image to the nearest edge, in pixels."""
    if not edge.any():
        return np.full(edge.shape, FARTHEST, dtype=np.float32)
    distance: Array = ndimage.distance_transform_edt(~edge).astype(np.float32)
    return distance.clip(0, FARTHEST)


def equalise(levels: npt.NDArray[np.int64]) -> Array:
    """Equalise the histogram of each of (B, H, W) images over 0 to 255."""
    counts = np.stack([(levels == v).sum(axis=(1, 2)) for v in range(FARTHEST + 1)], axis=1)
    lowest = np.take_along_axis(counts, (counts > 0).argmax(axis=1)[:, None], axis=1)  # (B, 1)
    above = counts.cumsum(axis=1) - lowest  # (B, levels)
    table = np.rint(255 * above / np.maximum(SIZE * SIZE - lowest, 1)).clip(0)
    flat = np.take_along_axis(table, levels.reshape(len(levels), -1), axis=1)
    return flat.reshape(levels.shape).astype(np.float32)

"""Elastic deformation: a random affine map, then small local displacements."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from debiasbench.datasets._corruptions.arrays import SIZE, Array
from debiasbench.datasets._corruptions.draws import Draws
from debiasbench.datasets._corruptions.layers import smooth

# by severity, in pixels: size and smoothing of local displacements, range of the affine map
ELASTIC = ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96))
ANCHORS = np.array([(26, 26), (26, 6), (6, 6)], dtype=np.float64)  # (x, y) that fix the affine map


def elastic(x: Array, severity: int, draws: Draws) -> Array:
    """Apply a random affine map, then move every pixel a little; bilinear both times."""
    _, _, reach = ELASTIC[severity - 1]
    column, row = affine(draws.uniform(-reach, reach, 3, 2))  # (B, H, W) each
    x = sample(x, column, row, align_corners=True)
    right, down = displacements(severity, draws)
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    return sample(x, columns + right, rows + down, align_corners=False)


def affine(shift: Array) -> tuple[Array, Array]:
    """Return the source column and row of each target pixel if the anchors move by (B, 3, 2)."""
    moved = np.concatenate([ANCHORS + shift, np.ones((len(shift), 3, 1))], axis=2)  # (B, 3, 3)
    inverse = np.linalg.solve(moved, np.broadcast_to(ANCHORS, shift.shape))  # (B, 3, 2)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    a, b, c = inverse.transpose(1, 2, 0)[..., None, None]  # (2, B, 1, 1) each
    column, row = (a * columns + b * rows + c).astype(np.float32)  # (B, H, W) each
    return column, row


def displacements(severity: int, draws: Draws) -> tuple[Array, Array]:
    """Draw displacements to the right and down, (B, H, W) pixels each."""
    size, smoothing, _ = ELASTIC[severity - 1]
    noise = [draws.uniform(-1, 1, SIZE, SIZE) for _ in range(2)]
    right, down = (size * smooth(n, smoothing, mode="reflect", truncate=3) for n in noise)
    return right, down


def sample(x: Array, column: Array, row: Array, *, align_corners: bool) -> Array:
    """Read (B, 3, H, W) images at (B, H, W) positions in pixels, mirrored at the border.

    The mirror axis is the centre of the border pixels with `align_corners`, else their outer edge.
    """
    at = np.stack([column, row], axis=-1)  # (B, H, W, 2)
    grid = 2 * at / (SIZE - 1) - 1 if align_corners else (2 * at + 1) / SIZE - 1
    sampled: Array = F.grid_sample(
        torch.from_numpy(x),
        torch.from_numpy(grid),
        padding_mode="reflection",
        align_corners=align_corners,
    ).numpy()
    return sampled

"""Elastic deformation moves pixels and creates no new values."""

from __future__ import annotations

import numpy as np
import pytest

from debiasbench.datasets._corruptions import deformation
from tests.datasets.corruptions.images import SEVERITIES, changed, draws, flat, pictures


@pytest.mark.parametrize("severity", SEVERITIES)
def test_elastic_moves_pixels_and_creates_no_new_values(severity: int) -> None:
    assert (changed("elastic", flat(90), severity) == 90).all()
    x = pictures()
    result = changed("elastic", x, severity)
    moved = (result - x).abs().mean()
    levels = (result.flatten(2).sort().values - x.float().flatten(2).sort().values).abs().mean()
    assert levels < 0.7 * moved
    assert (result.amax((2, 3)) <= x.amax((2, 3))).all()
    assert (result.amin((2, 3)) >= x.amin((2, 3))).all()


def test_elastic_changes_from_global_to_local() -> None:
    rough, reach = [], []
    for severity in SEVERITIES:
        right, _ = deformation.displacements(severity, draws(50))
        rough.append(float(np.abs(np.diff(right, axis=2)).mean()))
        size = deformation.ELASTIC[severity - 1][2]
        column, _ = deformation.affine(draws(50).uniform(-size, size, 3, 2))
        reach.append(float(np.abs(column - np.arange(32)).mean()))
    assert rough == sorted(rough)
    assert rough[0] == 0
    assert reach == sorted(reach, reverse=True)


def test_the_affine_map_moves_the_anchors() -> None:
    shift = np.array([[(2, -1), (0, 3), (-2, 1)]], dtype=np.float32)  # (1, 3, 2), (x, y)
    column, row = deformation.affine(shift)
    for (x, y), (dx, dy) in zip(deformation.ANCHORS.astype(int), shift[0].astype(int), strict=True):
        assert (column[0, y + dy, x + dx], row[0, y + dy, x + dx]) == pytest.approx(
            (x, y), abs=1e-4
        )


@pytest.mark.parametrize(("align_corners", "left"), [(True, [2, 1, 0]), (False, [1, 0, 0])])
def test_images_are_mirrored_at_the_border(align_corners: bool, left: list[int]) -> None:
    x = np.broadcast_to(np.arange(32, dtype=np.float32), (1, 3, 32, 32)).copy()
    rows, columns = np.mgrid[:32, :32].astype(np.float32)[:, None]
    moved = deformation.sample(x, columns - 2, rows, align_corners=align_corners)
    assert moved[0, 0, 5, :3] == pytest.approx(left, abs=1e-4)
    assert moved[0, 0, 5, 3:] == pytest.approx(np.arange(1, 30), abs=1e-4)

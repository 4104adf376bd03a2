"""Spatter: water, mud and the edges of drops."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from debiasbench.datasets._corruptions import drops
from tests.datasets.corruptions.images import SEVERITIES, changed, flat, pictures


def test_spatter_covers_more_with_severity() -> None:
    x = pictures(300)
    covered = [(changed("spatter", x, s) != x).any(1).float().mean().item() for s in SEVERITIES]
    water, mud = covered[:3], covered[3:]
    assert water == sorted(water)
    assert mud == sorted(mud)
    assert all(0.01 < share < 0.4 for share in covered)


def test_water_lightens_and_mud_is_brown() -> None:
    grey = flat(100, 64)
    assert (changed("spatter", grey, 3) >= 100).all()
    red, green, blue = changed("spatter", grey, 5).permute(1, 0, 2, 3)  # (64, 32, 32) each
    cover = (100 - red) / (100 - 63)  # (63, 42, 20) where cover is 1
    assert (cover > 0.99).any()
    assert ((cover == 0) | (cover > 0.78)).all()
    torch.testing.assert_close(green, 100 - 58 * cover, atol=1.5, rtol=0)
    torch.testing.assert_close(blue, 100 - 80 * cover, atol=2, rtol=0)


def test_a_dry_image_has_no_water() -> None:
    dry = np.zeros((2, 32, 32), dtype=np.float32)
    assert not drops.water(dry).any()


def test_the_edges_of_a_drop_are_its_closed_outline() -> None:
    drop = np.zeros((1, 32, 32), dtype=np.float32)
    drop[0, 8:20, 10:25] = 200
    edges = drops.edges(drop)[0]
    near = ndimage.binary_dilation(drop[0] > 0) & ~ndimage.binary_erosion(drop[0] > 0)
    assert edges.any()
    assert not (edges & ~near).any()
    # no path from outside reaches the inside without crossing an edge
    border = np.pad(np.zeros((30, 30), bool), 1, constant_values=True)
    outside = ndimage.binary_propagation(border, mask=~edges)
    assert not outside[10:18, 12:23].any()


def test_a_weak_edge_counts_only_if_connected_to_a_strong_one() -> None:
    grey = np.zeros((1, 32, 32), dtype=np.float32)
    grey[0, :16, 8:] = 20  # Sobel gradient 80, above 50
    assert not drops.edges(grey).any()
    grey[0, 16:, 8:] = 60  # 240, above 150
    assert drops.edges(grey)[0, 4, 7:9].any()


def test_equalised_levels_spread_over_0_to_255() -> None:
    levels = np.repeat(np.arange(4), 256).reshape(1, 32, 32)
    assert np.unique(drops.equalise(levels)).tolist() == [0, 85, 170, 255]

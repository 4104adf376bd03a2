"""JPEG compression and pixelation do what Pillow does."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from debiasbench.datasets._corruptions import corrupt
from tests.datasets.corruptions.images import changed, pictures


@pytest.mark.parametrize(("severity", "quality"), [(1, 80), (2, 65), (3, 58), (4, 50), (5, 40)])
def test_jpeg_equals_pillow_at_that_quality(severity: int, quality: int) -> None:
    x = pictures(3)
    for clean, result in zip(x, corrupt("jpeg", x, severity, torch.arange(3)), strict=True):
        file = io.BytesIO()
        Image.fromarray(clean.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        assert np.array_equal(np.asarray(Image.open(file)), result.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("severity", "side"), [(1, 30), (2, 28), (3, 27), (4, 24), (5, 20)])
def test_pixelate_makes_blocks_of_the_mean_they_cover(severity: int, side: int) -> None:
    x = pictures(3)
    result = changed("pixelate", x, severity)
    block = ((torch.arange(32) + 0.5) * side / 32).long()  # the block of each row and column
    first = torch.tensor([int((block == b).nonzero()[0]) for b in range(side)])
    blocks = result[:, :, first][:, :, :, first]
    assert torch.equal(result, blocks[:, :, block][:, :, :, block])
    covers = torch.zeros(side, 32)
    middles = torch.arange(32) + 0.5
    for b in range(side):  # Pillow's box takes the pixels with their centre in it
        covers[b] = ((middles >= b * 32 / side) & (middles < (b + 1) * 32 / side)).float()
    covers /= covers.sum(1, keepdim=True)
    torch.testing.assert_close(blocks, covers @ x.float() @ covers.T, atol=1.01, rtol=0)

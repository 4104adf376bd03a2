"""Scaling and cropping equal those of torchvision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Resize

from debiasbench.files.images import (
    BadImage,
    chained,
    cropped,
    decode,
    stretched,
)
from tests.files.images.pictures import folder_of, noise


@pytest.mark.parametrize(("height", "width"), [(20, 31), (7, 5), (12, 10), (24, 3)])
def test_stretching_equals_resize_of_torchvision(tmp_path: Path, height: int, width: int) -> None:
    image = Image.fromarray(noise(1))
    actual, expected = stretched(height, width)(image), Resize((height, width))(image)
    assert np.array_equal(np.asarray(actual), np.asarray(expected))


@pytest.mark.parametrize(("height", "width"), [(12, 10), (11, 7), (4, 9), (1, 1)])
def test_cropping_equals_center_crop_of_torchvision(height: int, width: int) -> None:
    image = Image.fromarray(noise(1))
    actual, expected = cropped(height, width)(image), CenterCrop((height, width))(image)
    assert np.array_equal(np.asarray(actual), np.asarray(expected))


def test_an_image_that_is_too_small_to_crop_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match=r"0\.png is 10x12 .*smaller than the crop of 11x3"):
        decode(folder_of(tmp_path, 1), cropped(3, 11))


def test_shapes_are_chained_in_order() -> None:
    image = Image.fromarray(noise(1))
    assert chained(stretched(20, 20), cropped(4, 6))(image).size == (6, 4)
    with pytest.raises(ValueError, match="smaller"):
        chained(cropped(4, 6), cropped(5, 5))(image)

"""Augmentation: different for each image, reproducible by seed, and without invented pixels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from debiasbench.files.augment import CropFlip, ResizedCropFlip


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_crop_is_one_of_the_shifts_of_the_padded_image_mirrored_or_not() -> None:
    x = torch.rand(64, 3, 6, 8, generator=rng())
    changed = CropFlip(padding=2)(x, rng(1))
    padded = F.pad(x, [2, 2, 2, 2])
    shifts = [padded[:, :, i : i + 6, j : j + 8] for i in range(5) for j in range(5)]
    every = torch.stack([s for shift in shifts for s in (shift, shift.flip(3))])  # (50, B, ...)
    same = (every == changed).flatten(2).all(2)  # (50, B)
    assert same.any(0).all()
    assert len(same.int().argmax(0).unique()) > 20  # the images of a batch are changed differently


def test_half_of_the_images_are_mirrored() -> None:
    x = torch.rand(2000, 1, 1, 2, generator=rng())
    mirrored = (CropFlip(padding=0)(x, rng(1)) == x.flip(3)).flatten(1).all(1)
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(CropFlip(padding=0, flip=False)(x, rng(1)), x)


@pytest.mark.parametrize("augment", [CropFlip(), ResizedCropFlip()])
def test_the_changes_depend_on_the_generator(
    augment: CropFlip | ResizedCropFlip,
) -> None:
    x = torch.rand(8, 3, 16, 16, generator=rng())
    assert torch.equal(augment(x, rng(1)), augment(x, rng(1)))
    assert not torch.equal(augment(x, rng(1)), augment(x, rng(2)))


def test_a_part_as_large_as_the_image_is_the_image() -> None:
    x = torch.rand(4, 3, 8, 8, generator=rng())
    whole = ResizedCropFlip(scale=(1.0, 1.0), ratio=(1.0, 1.0))(x, rng())
    for before, after in zip(x, whole, strict=True):
        assert torch.allclose(after, before, atol=1e-5) or torch.allclose(
            after, before.flip(2), atol=1e-5
        )


def test_parts_have_the_requested_areas_and_are_inside() -> None:
    size = 64
    ramp = torch.linspace(0, 1, size)
    x = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size)]).expand(
        300, -1, -1, -1
    )
    part = ResizedCropFlip(scale=(0.25, 0.5))(x, rng())
    width = (part[:, 0].amax((1, 2)) - part[:, 0].amin((1, 2))) * size / (size - 1)
    height = (part[:, 1].amax((1, 2)) - part[:, 1].amin((1, 2))) * size / (size - 1)
    area = width * height
    assert area.min() > 0.25 - 0.03
    assert area.max() < 0.5 + 0.03
    assert area.max() - area.min() > 0.15
    assert (width / height).max() > 1.2
    assert (width / height).min() < 0.85
    left = part[:, 0].amin((1, 2))
    assert left.max() > 0.2  # not always the same corner

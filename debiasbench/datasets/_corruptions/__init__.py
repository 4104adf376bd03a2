"""The ten corruptions of biased CIFAR10-C, implemented from their definitions for 32x32 images.

Definitions and parameters: Hendrycks & Dietterich, ICLR 2019, in the sizes for CIFAR-10. Unlike the
published generator, this one rounds to grey levels instead of truncating, works on batches, and
needs neither OpenCV nor ImageMagick. Only `frost` is defined differently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from debiasbench.datasets._corruptions.arrays import Array, to_bytes
from debiasbench.datasets._corruptions.colour import brightness, contrast, saturate
from debiasbench.datasets._corruptions.deformation import elastic
from debiasbench.datasets._corruptions.draws import Draws
from debiasbench.datasets._corruptions.drops import spatter
from debiasbench.datasets._corruptions.resolution import jpeg, pixelate
from debiasbench.datasets._corruptions.weather import fog, frost, snow

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

CHUNK = 512  # images at a time: their floats and intermediate layers take about 50 MB

_CORRUPTIONS: dict[str, Callable[[Array, int, Draws], Array]] = {
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "spatter": spatter,
    "elastic": elastic,
    "jpeg": jpeg,
    "pixelate": pixelate,
    "saturate": saturate,
}

NAMES = tuple(_CORRUPTIONS)
"""Corruption k goes with class k of CIFAR-10, as in LfF (Nam et al., NeurIPS 2020)."""


def corrupt(name: str, x: Tensor, severity: int, index: Tensor, seed: int = 0) -> Tensor:
    """Corrupt (N, 3, 32, 32) uint8 images; `severity` from 1 to 5, `name` one of `NAMES`.

    `index`: (N,) int64 numbers >= 0 of the images in their source. The result for an image depends
    on its pixels, its number and the other arguments, never on other images. All severities use
    the same random numbers.

    Snow, fog, brightness, contrast, jpeg and pixelate move the image farther from the clean one
    with every severity. As published, the others change in other ways: frost gets more weight;
    spatter covers a larger area, first as water (1 to 3), then as mud (4, 5); elastic changes from
    global to local deformation; saturate reduces colour (1, 2), then increases it (3 to 5).
    """
    change = _CORRUPTIONS[name]
    out = torch.empty_like(x)
    for start in range(0, len(x), CHUNK):
        part = slice(start, start + CHUNK)
        clean = x[part].numpy().astype(np.float32) / 255  # (B, 3, H, W)
        draws = Draws.of(seed, name, index[part])
        out[part] = torch.from_numpy(to_bytes(change(clean, severity, draws)))
    return out

"""Random changes of training images, for a whole batch at once and on its device."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True)
class CropFlip:
    """Pads with `padding` black pixels, crops at a random place, and mirrors half of the images."""

    padding: int = 4
    flip: bool = True

    def __call__(self, x: Tensor, rng: Generator) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same shape; `rng` is on the device of `x`."""
        if self.padding:
            x = _shifted(x, self.padding, rng)
        return _mirrored(x, rng) if self.flip else x


@dataclass(frozen=True)
class ResizedCropFlip:
    """Stretches a random rectangle to the size of the image, and mirrors half of the images.

    `scale`: range of its relative area, in (0, 1]; `ratio`: range of width divided by height, drawn
    log-uniformly. Like RandomResizedCrop of torchvision, except that a rectangle larger than the
    image is shrunk instead of drawn again.
    """

    scale: tuple[float, float] = (0.7, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, x: Tensor, rng: Generator) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same shape; `rng` is on the device of `x`."""
        draws = torch.rand(4, len(x), generator=rng, device=x.device)
        area = self.scale[0] + draws[0] * (self.scale[1] - self.scale[0])  # (B,)
        low, span = _shapes(self.ratio)
        shape = (low + draws[1] * span).exp()  # (B,)
        width, height = (area * shape).sqrt().clamp(max=1), (area / shape).sqrt().clamp(max=1)
        # in coordinates from -1 to 1, a part of width w has its centre between w - 1 and 1 - w
        theta = torch.zeros(len(x), 2, 3, device=x.device, dtype=x.dtype)
        theta[:, 0, 0], theta[:, 1, 1] = width, height
        theta[:, 0, 2] = (1 - width) * (2 * draws[2] - 1)
        theta[:, 1, 2] = (1 - height) * (2 * draws[3] - 1)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        part = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        return _mirrored(part, rng)


@functools.cache
def _shapes(ratio: tuple[float, float]) -> tuple[float, float]:
    """Return the logarithm of the smallest ratio, and the length of the range, as float32.

    They are computed once and on the host, since a step that is replayed cannot copy tensors to the
    device.
    """
    low, high = torch.tensor(ratio).log()
    return float(low), float(high - low)


def _shifted(x: Tensor, padding: int, rng: Generator) -> Tensor:
    b, c, h, w = x.shape
    top, left = torch.randint(0, 2 * padding + 1, (2, b, 1), generator=rng, device=x.device)
    rows, columns = (torch.arange(n, device=x.device) for n in (h, w))
    padded = F.pad(x, [padding] * 4)
    # two gathers take half the time of one indexing with both
    part = padded.gather(2, (top + rows)[:, None, :, None].expand(b, c, h, padded.shape[3]))
    return part.gather(3, (left + columns)[:, None, None, :].expand(b, c, h, w))


def _mirrored(x: Tensor, rng: Generator) -> Tensor:
    mirror = torch.rand(len(x), 1, 1, 1, generator=rng, device=x.device) < 0.5
    return torch.where(mirror, x.flip(3), x)

"""Colour and place as biases of digits: palettes, and how an image gets its colour and place."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

COLOURS = (
    ("red", (255, 0, 0)),
    ("orange", (255, 128, 0)),
    ("yellow", (255, 255, 0)),
    ("lime", (128, 255, 0)),
    ("green", (0, 255, 0)),
    ("cyan", (0, 255, 255)),
    ("blue", (0, 0, 255)),
    ("violet", (128, 0, 255)),
    ("pink", (255, 0, 128)),
    ("magenta", (255, 0, 255)),
)
"""Colour k goes with digit k; measured on the CMNIST images that DisEnt, DCWP and REST use."""

LFF_COLOURS = (
    (0.9837, 0.3125, 0.1686),
    (0.9905, 0.9156, 0.3515),
    (0.6730, 0.4611, 0.5798),
    (0.7833, 0.8316, 0.6013),
    (0.0880, 0.7780, 0.9818),
    (0.3214, 0.9611, 0.4464),
    (0.0246, 0.2357, 0.7587),
    (0.5552, 0.1016, 0.7618),
    (0.2077, 0.3929, 0.0187),
    (0.8337, 0.2024, 0.2669),
)
"""Colour k goes with digit k; RGB in [0, 1], the values of LfF's generator to four digits."""

LFF_NOISE = (0.05, 0.02, 0.01, 0.005, 0.002)
"""Standard deviation of the colour of an image around the palette, by severity from 1 to 5."""

THRESHOLD = 100  # grey values above it become the pure colour, others stay grey


def colour(grey: Tensor, bias: Tensor) -> Tensor:
    """(N, H, W) uint8 grey images and (N,) colour indices -> (N, 3, H, W) uint8."""
    palette = torch.tensor([rgb for _, rgb in COLOURS], dtype=torch.uint8)
    grey = grey[:, None]  # (N, 1, H, W)
    return torch.where(grey > THRESHOLD, palette[bias][:, :, None, None], grey)


def lff_colour(grey: Tensor, bias: Tensor, generator: Generator, *, severity: int) -> Tensor:
    """(N, H, W) uint8 grey images and (N,) colour indices -> (N, 3, H, W) uint8, as in LfF.

    The grey values of an image are multiplied by one colour, drawn around the colour of the palette
    (Nam et al., NeurIPS 2020). A higher `severity`, from 1 to 5, means less noise, so the bias is
    easier to learn.
    """
    noise = torch.randn(len(bias), 3, generator=generator) * LFF_NOISE[severity - 1]
    rgb = (torch.tensor(LFF_COLOURS)[bias] + noise).clamp(0, 1)  # (N, 3)
    painted = torch.empty(len(grey), 3, *grey.shape[1:], dtype=torch.uint8)
    for start in range(0, len(grey), 4096):  # in parts: floats take four times the memory
        part = slice(start, start + 4096)
        painted[part] = (grey[part, None] * rgb[part, :, None, None]).round_().to(torch.uint8)
    return painted


def placed(grey: Tensor, place: Tensor) -> Tensor:
    """(N, 28, 28) grey images and (N,) places from 0 to 9 -> images scaled to 20x20 and moved.

    There are two rows of five places. They overlap: neighbours are two pixels apart.
    """
    from torch.nn.functional import interpolate

    small = interpolate(grey[:, None].float(), (20, 20), mode="area")[:, 0].round()  # (N, 20, 20)
    top, left = 8 * (place // 5), 2 * (place % 5)
    moved = torch.zeros_like(grey)
    for row, column in {(int(t), int(c)) for t, c in zip(top, left, strict=True)}:
        members = (top == row) & (left == column)
        moved[members, row : row + 20, column : column + 20] = small[members].to(grey.dtype)
    return moved

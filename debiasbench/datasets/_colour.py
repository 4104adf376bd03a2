"""Colour and place as shortcuts: palettes, the rules by which digits take them, and the splits."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

import torch
from torch import Generator, Tensor

from debiasbench.core.data import Split, Task

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
"""Colour k goes with digit k; measured on the CMNIST that DisEnt, DCWP and REST share."""

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
"""Colour k goes with digit k; RGB in [0, 1], to four digits those that LfF's generator reads."""

LFF_NOISE = (0.05, 0.02, 0.01, 0.005, 0.002)
"""Standard deviation of an image's colour around the palette's, by severity from 1 to 5."""

THRESHOLD = 100  # grey values above it take the pure colour, those up to it stay grey


def colour(grey: Tensor, bias: Tensor) -> Tensor:
    """(N, H, W) uint8 grey images and (N,) colour indices -> (N, 3, H, W) uint8."""
    palette = torch.tensor([rgb for _, rgb in COLOURS], dtype=torch.uint8)
    grey = grey[:, None]  # (N, 1, H, W)
    return torch.where(grey > THRESHOLD, palette[bias][:, :, None, None], grey)


def lff_colour(grey: Tensor, bias: Tensor, generator: Generator, *, severity: int) -> Tensor:
    """(N, H, W) uint8 grey images and (N,) colour indices -> (N, 3, H, W) uint8, as LfF has it.

    An image is its grey values times one colour, which is drawn around the palette's (Nam et al.,
    NeurIPS 2020): more `severity`, in 1 to 5, is less noise, so a bias that is easier to learn.
    """
    noise = torch.randn(len(bias), 3, generator=generator) * LFF_NOISE[severity - 1]
    rgb = (torch.tensor(LFF_COLOURS)[bias] + noise).clamp(0, 1)  # (N, 3)
    painted = torch.empty(len(grey), 3, *grey.shape[1:], dtype=torch.uint8)
    for at in range(0, len(grey), 4096):  # in parts: floats take four times the room
        some = slice(at, at + 4096)
        painted[some] = (grey[some, None] * rgb[some, :, None, None]).round_().to(torch.uint8)
    return painted


def placed(grey: Tensor, place: Tensor) -> Tensor:
    """(N, 28, 28) grey images and (N,) places in 0 to 9 -> the image at 20x20, at its place.

    Two rows of five places, which overlap: neighbours are two pixels apart.
    """
    from torch.nn.functional import interpolate

    small = interpolate(grey[:, None].float(), (20, 20), mode="area")[:, 0].round()  # (N, 20, 20)
    top, left = 8 * (place // 5), 2 * (place % 5)
    moved = torch.zeros_like(grey)
    for row, column in {(int(t), int(c)) for t, c in zip(top, left, strict=True)}:
        here = (top == row) & (left == column)
        moved[here, row : row + 20, column : column + 20] = small[here].to(grey.dtype)
    return moved


def biased_colours(y: Tensor, ratio: float, generator: Generator) -> Tensor:
    """(N,) colours equal to the class, but for `ratio` of each class.

    Those take one of the other nine at random; a class has round(ratio * size) of them.
    """
    bias = y.clone()
    for digit in range(10):
        members = _shuffled(y == digit, generator)
        conflicting = members[: round(ratio * len(members))]
        other = torch.randint(1, 10, (len(conflicting),), generator=generator)
        bias[conflicting] = (digit + other) % 10
    return bias


def balanced_colours(y: Tensor, generator: Generator) -> Tensor:
    """(N,) colours that every class has equally often, to within one sample."""
    bias = torch.empty_like(y)
    for digit in range(10):
        members = _shuffled(y == digit, generator)
        bias[members] = torch.arange(len(members)) % 10
    return bias


def take_per_class(y: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Split indices of (N,) labels into `count` of each of ten classes, and the rest, sorted."""
    taken = torch.cat([_shuffled(y == digit, generator)[:count] for digit in range(10)])
    rest = torch.ones(len(y), dtype=torch.bool)
    rest[taken] = False
    return taken.sort().values, rest.nonzero()[:, 0]


Painter = Callable[[Tensor, Tensor, Generator], Tensor]
"""(N, H, W) grey images, (N,) colours and a generator for noise -> (N, 3, H, W) uint8."""


def coloured_task(
    parts: dict[str, tuple[Tensor, Tensor]],
    ratio: float,
    split_seed: int,
    *,
    paint: Painter | None = None,
    place_ratio: float | None = None,
) -> Task:
    """Colour grey images and labels by split: training with the shortcut, val and test balanced.

    `parts`: train, val, test -> ((N, 28, 28) uint8, (N,) int64 digits). Validation and test images
    are the same at every ratio. `paint`: how; by the CMNIST rule if None. `place_ratio`: as
    `ratio`, of a second shortcut, the digit's place; a bias value is then a colour and a place, and
    only samples that follow both shortcuts are aligned.
    """

    def split(name: str, *ratios: float | None) -> Split:
        grey, y = parts[name]
        rngs = [generator(split_seed, what, name) for what in ("colours", "places")]
        colours, places = (
            balanced_colours(y, rng) if ratio is None else biased_colours(y, ratio, rng)
            for ratio, rng in zip(ratios or (None, None), rngs, strict=True)
        )
        if place_ratio is not None:
            grey = placed(grey, places)
        x = (paint or _pure)(grey, colours, generator(split_seed, "noise", name))
        if place_ratio is None:
            return Split(x, y, colours, num_biases=10)
        return Split(x, y, 10 * colours + places, num_biases=100)

    names = tuple(f"colour {i}" if paint else name for i, (name, _) in enumerate(COLOURS))
    aligned = torch.eye(10, dtype=torch.bool)
    if place_ratio is not None:
        names = tuple(f"{name}, place {place}" for name in names for place in range(10))
        aligned = torch.eye(100, dtype=torch.bool)[torch.arange(10) * 11]
    return Task(
        train=split("train", ratio, 0.0 if place_ratio is None else place_ratio),
        val=split("val"),
        test=split("test"),
        classes=tuple("0123456789"),
        biases=names,
        aligned=aligned,
        metric="unbiased",
        select="val_unbiased",
    )


def generator(split_seed: int, *purpose: str) -> Generator:
    """Return a generator for one purpose, so that no choice depends on how many came before it."""
    digest = blake2b("/".join((str(split_seed), *purpose)).encode(), digest_size=7).digest()
    return Generator().manual_seed(int.from_bytes(digest, "big"))


def _pure(grey: Tensor, colours: Tensor, _noise: Generator) -> Tensor:
    return colour(grey, colours)


def _shuffled(members: Tensor, generator: Generator) -> Tensor:
    index = members.nonzero()[:, 0]
    return index[torch.randperm(len(index), generator=generator)]

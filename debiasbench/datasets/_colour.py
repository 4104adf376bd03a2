"""Colour as a shortcut: the CMNIST palette and rule, and splits whose colours follow the class."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import torch

from debiasbench.data import Split, Task

if TYPE_CHECKING:
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
"""Colour k goes with digit k; measured on the CMNIST that DisEnt, DCWP and REST share."""

THRESHOLD = 100  # grey values above it take the pure colour, those up to it stay grey


def colour(grey: Tensor, bias: Tensor) -> Tensor:
    """(N, H, W) uint8 grey images and (N,) colour indices -> (N, 3, H, W) uint8."""
    palette = torch.tensor([rgb for _, rgb in COLOURS], dtype=torch.uint8)
    grey = grey[:, None]  # (N, 1, H, W)
    return torch.where(grey > THRESHOLD, palette[bias][:, :, None, None], grey)


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


def coloured_task(parts: dict[str, tuple[Tensor, Tensor]], ratio: float, split_seed: int) -> Task:
    """Colour grey images and labels by split: training with the shortcut, val and test balanced.

    `parts`: train, val, test -> ((N, 28, 28) uint8, (N,) int64 digits). Validation and test images
    are the same at every `ratio`.
    """

    def split(name: str, ratio: float | None = None) -> Split:
        grey, y = parts[name]
        rng = generator(split_seed, "colours", name)
        bias = balanced_colours(y, rng) if ratio is None else biased_colours(y, ratio, rng)
        return Split(colour(grey, bias), y, bias, num_biases=10)

    return Task(
        train=split("train", ratio),
        val=split("val"),
        test=split("test"),
        classes=tuple("0123456789"),
        biases=tuple(name for name, _ in COLOURS),
        aligned=torch.eye(10, dtype=torch.bool),
        metric="unbiased",
        select="val_unbiased",
    )


def generator(split_seed: int, *purpose: str) -> Generator:
    """Return a generator for one purpose, so that no choice depends on how many came before it."""
    digest = blake2b("/".join((str(split_seed), *purpose)).encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def _shuffled(members: Tensor, generator: Generator) -> Tensor:
    index = members.nonzero()[:, 0]
    return index[torch.randperm(len(index), generator=generator)]

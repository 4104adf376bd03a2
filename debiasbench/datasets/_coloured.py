"""A task of coloured digits: biased in training, balanced in the test split."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from debiasbench.core.data import Split, Task
from debiasbench.datasets._assignment import balanced_values, biased_values, generator
from debiasbench.datasets._colour import COLOURS, colour, placed

Painter = Callable[[Tensor, Tensor, Generator], Tensor]
"""(N, H, W) grey images, (N,) colours and a generator for noise -> (N, 3, H, W) uint8."""


def coloured_task(
    parts: dict[str, tuple[Tensor, Tensor]],
    ratio: float,
    split_seed: int,
    *,
    paint: Painter | None = None,
    place_ratio: float | None = None,
    biased_val: bool = False,
) -> Task:
    """Colour grey images, with a biased training split and balanced validation and test splits.

    `parts`: train, val and test -> ((N, 28, 28) uint8, (N,) int64 digits). Balanced images are the
    same at every ratio. `ratio`: fraction of bias-conflicting training samples. `biased_val`:
    whether the validation split is as biased as the training split. `paint`: the
    colour rule; by default that of CMNIST. `place_ratio`: the ratio of a second bias, the place of
    the digit. A bias value is then a pair of colour and place, and only samples that follow both
    are aligned.
    """

    def split(name: str, *ratios: float | None) -> Split:
        grey, y = parts[name]
        rngs = [generator(split_seed, kind, name) for kind in ("colours", "places")]
        colours, places = (
            balanced_values(y, rng) if ratio is None else biased_values(y, ratio, rng)
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
    biased = (ratio, 0.0 if place_ratio is None else place_ratio)
    return Task(
        train=split("train", *biased),
        val=split("val", *(biased if biased_val else ())),
        test=split("test"),
        classes=tuple("0123456789"),
        biases=names,
        aligned=aligned,
        metric="unbiased",
        select="val_unbiased",
    )


def _pure(grey: Tensor, colours: Tensor, _noise: Generator) -> Tensor:
    return colour(grey, colours)

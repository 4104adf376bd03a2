"""Assign bias values and splits to samples by class, at random but reproducibly."""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Generator, Tensor


def generator(split_seed: int, *purpose: str) -> Generator:
    """Return a generator for one purpose, so that no choice depends on earlier ones."""
    digest = blake2b("/".join((str(split_seed), *purpose)).encode(), digest_size=7).digest()
    return Generator().manual_seed(int.from_bytes(digest, "big"))


def biased_values(y: Tensor, ratio: float, generator: Generator) -> Tensor:
    """(N,) bias values equal to the class, except for a fraction `ratio` of each class.

    There are ten classes and ten values. A class has round(ratio * size) conflicting samples, and
    each takes one of the other nine values at random.
    """
    bias = y.clone()
    for label in range(10):
        members = _shuffled(y == label, generator)
        conflicting = members[: round(ratio * len(members))]
        offset = torch.randint(1, 10, (len(conflicting),), generator=generator)
        bias[conflicting] = (label + offset) % 10
    return bias


def balanced_values(y: Tensor, generator: Generator) -> Tensor:
    """(N,) bias values that are equally frequent in each of ten classes, to within one sample."""
    bias = torch.empty_like(y)
    for label in range(10):
        members = _shuffled(y == label, generator)
        bias[members] = torch.arange(len(members)) % 10
    return bias


def take_per_class(y: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Split the indices of (N,) labels into `count` of each of ten classes and the rest, sorted."""
    taken = torch.cat([_shuffled(y == label, generator)[:count] for label in range(10)])
    rest = torch.ones(len(y), dtype=torch.bool)
    rest[taken] = False
    return taken.sort().values, rest.nonzero()[:, 0]


def _shuffled(members: Tensor, generator: Generator) -> Tensor:
    index = members.nonzero()[:, 0]
    return index[torch.randperm(len(index), generator=generator)]

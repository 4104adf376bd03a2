"""The batches of an epoch: which samples of a split, in which order."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Batches:
    """Divides the samples of an epoch into batches: all in random order, or drawn by weight.

    `size`: samples of the split. `weights`: (N,) sampling weights, with which samples are drawn
    with replacement. `subset`: (M,) int64 indices of the samples that are used; None uses all.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        weights: Tensor | None = None,
        subset: Tensor | None = None,
    ) -> None:
        self.batch_size, self.weights, self.subset = batch_size, weights, subset
        self.pool = torch.arange(size) if subset is None else subset  # (M,)
        self._pool_weights = None if weights is None else weights[self.pool]
        n = len(self.pool)
        # BatchNorm cannot train on a single sample, so an epoch has no last batch of one sample
        single = n % batch_size == 1 and n > 1 and batch_size > 1
        self.epoch_size = n - single

    def __len__(self) -> int:
        return math.ceil(self.epoch_size / self.batch_size)

    @property
    def largest(self) -> int:
        """Samples of the largest batch of an epoch."""
        return min(self.batch_size, self.epoch_size)

    @property
    def smallest(self) -> int:
        """Samples of the smallest batch of an epoch."""
        return self.epoch_size % self.batch_size or self.largest

    def epoch(self, rng: torch.Generator) -> list[Tensor]:
        """Return an epoch's batches of sample indices, each (B,) int64, on the host."""
        n = len(self.pool)
        if self._pool_weights is None:
            order = torch.randperm(n, generator=rng)
        else:
            order = torch.multinomial(self._pool_weights, n, replacement=True, generator=rng)
        return list(torch.split(self.pool[order[: self.epoch_size]], self.batch_size))

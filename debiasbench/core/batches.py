"""The batches of each epoch of a stage: which samples of a split, in which order."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from debiasbench.common.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    BatchFunction: TypeAlias = Callable[[int, torch.Generator], Sequence[Tensor]]


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
        """Return the number of batches of an epoch."""
        return math.ceil(self.epoch_size / self.batch_size)

    @property
    def largest(self) -> int:
        """Samples of the largest batch of an epoch."""
        return min(self.batch_size, self.epoch_size)

    @property
    def smallest(self) -> int:
        """Samples of the smallest batch of an epoch."""
        return self.epoch_size % self.batch_size or self.largest

    def steps(self, epochs: int) -> int:
        """Return the number of batches of the first `epochs` epochs."""
        return epochs * len(self)

    def epochs(self, steps: int) -> int:
        """Return the number of epochs that `steps` batches take, the last one perhaps in part."""
        return math.ceil(steps / len(self))

    def epoch(self, rng: torch.Generator, number: int = 0) -> list[Tensor]:
        """Return the batches of epoch `number` (from 0), each (B,) int64 indices on the host."""
        n = len(self.pool)
        if self._pool_weights is None:
            order = torch.randperm(n, generator=rng)
        else:
            order = torch.multinomial(self._pool_weights, n, replacement=True, generator=rng)
        return list(torch.split(self.pool[order[: self.epoch_size]], self.batch_size))


class OwnBatches(Batches):
    """Batches that a method makes itself, in which epochs and batches may differ in size.

    `function`: called with the number of the epoch (from 0) and a generator; returns the batches of
    this epoch, each (B,) int64 indices in [0, `size`). It must depend on nothing else, because the
    epochs are made once to count their batches, and again when they are trained on. `generator`:
    makes the generator of an epoch. `epochs`: number of epochs that are made first; with `steps`,
    as many as these steps need. Raises `OptionError` for batches that are not as described.
    """

    def __init__(
        self,
        size: int,
        function: BatchFunction,
        generator: Callable[[int], torch.Generator],
        *,
        epochs: int,
        steps: int | None = None,
    ) -> None:
        self._size, self._function = size, function
        self._sizes: list[list[int]] = []  # of the batches of each epoch
        self._planned: list[tuple[int, str]] = []  # seed of the generator, digest of the batches
        while len(self._sizes) < epochs if steps is None else sum(map(len, self._sizes)) < steps:
            number = len(self._sizes)
            rng = generator(number)
            made = self.epoch(rng, number)
            self._sizes.append([len(batch) for batch in made])
            self._planned.append((rng.initial_seed(), _digest(made)))
        self._steps = list(accumulate(map(len, self._sizes), initial=0))  # after each epoch
        super().__init__(size, max(map(max, self._sizes)))
        self.epoch_size = max(map(sum, self._sizes))

    def __len__(self) -> int:
        """Return the largest number of batches of an epoch."""
        return max(map(len, self._sizes))

    @property
    def largest(self) -> int:
        """Samples of the largest batch of all epochs."""
        return self.batch_size

    @property
    def smallest(self) -> int:
        """Samples of the smallest batch of all epochs."""
        return min(map(min, self._sizes))

    def steps(self, epochs: int) -> int:
        """Return the number of batches of the first `epochs` epochs."""
        return self._steps[min(epochs, len(self._sizes))]

    def epochs(self, steps: int) -> int:
        """Return the number of epochs that `steps` batches take, the last one perhaps in part."""
        return min(bisect_left(self._steps, steps), len(self._sizes))

    def epoch(self, rng: torch.Generator, number: int = 0) -> list[Tensor]:
        """Return the batches of epoch `number` (from 0), each (B,) int64 indices on the host."""
        made = [torch.as_tensor(batch).cpu() for batch in self._function(number, rng)]
        if not made:
            raise OptionError(f"batches returned none for epoch {number}: return one or more")
        for batch in made:
            if batch.dim() != 1 or batch.dtype != torch.long or len(batch) == 0:
                raise OptionError(
                    f"batches returned a batch of shape {tuple(batch.shape)} and type "
                    f"{batch.dtype} for epoch {number}, must be (B,) int64 indices, at least one"
                )
            if int(batch.min()) < 0 or int(batch.max()) >= self._size:
                raise OptionError(
                    f"batches returned index {int(batch.max())} for epoch {number}: indices must "
                    f"be in 0 to {self._size - 1}"
                )
        seed, digest = self._planned[number] if number < len(self._planned) else (None, "")
        if seed == rng.initial_seed() and digest != _digest(made):
            raise OptionError(
                f"batches returned other samples when it was called again for epoch {number}, so a "
                "resumed run would differ: it may depend only on its arguments. To choose samples "
                "by their losses, return candidates and choose among them in the loss, or use "
                "each_epoch"
            )
        return made


def _digest(batches: Sequence[Tensor]) -> str:
    """Return a digest of the sizes and indices of batches."""
    sizes = torch.tensor([len(batch) for batch in batches])
    whole = torch.cat([sizes, *batches]).contiguous()
    return hashlib.blake2b(whole.numpy().data, digest_size=16).hexdigest()

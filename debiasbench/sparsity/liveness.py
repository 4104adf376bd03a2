"""Which channels a small network needs: those that are read and vary, and stand-ins for the rest.

A *feature* is one place along the channel dimension of one tensor. Features that can only go
together, as before and after a BatchNorm or on both sides of an addition, have one *channel*
number. A feature is *alive* unless it has the same value for every input and at every position,
and *needed* if something needed is computed from it. A channel can go if each of its features is
dead or not needed: what is not needed leaves no trace, and a dead value is folded into its readers.

Zero padding makes a constant vary at the border, so a padded convolution cannot take it up in its
bias. For such readers every layer's output gets one feature that the network does not have yet,
its *carrier*: dead, but not zero. If it is wanted, it becomes a channel of the small network and
brings all removed constants to the padded readers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _as_they_are(needed: Tensor) -> Tensor:
    return needed


@dataclass(eq=False)
class Features:
    """The F features of one tensor, carriers included, in their order along dimension `dim`."""

    dim: int
    channels: Tensor  # (F,) int64, the channel of each feature
    real: Tensor  # (F,) bool, False for carriers
    carrier: Tensor  # (F,) int64, the place of each feature's carrier among these F
    alive: Tensor  # (F,) bool
    value: Tensor  # (F,) float64, what a dead feature is; 0 where alive
    # what these are computed from, each with: needed features here (F,) -> needed features there
    reads: Sequence[tuple[Features, Callable[[Tensor], Tensor]]] = ()
    needed: Tensor = field(init=False)  # (F,) bool

    def __post_init__(self) -> None:
        self.needed = torch.zeros_like(self.real)

    @property
    def constant(self) -> Tensor:
        """(F,) bool: dead but not 0, so that zero padding shows."""
        return ~self.alive & (self.value != 0)

    def matches(self, other: Features) -> bool:
        """Whether the features of two tensors correspond one to one."""
        return self.dim == other.dim and torch.equal(self.real, other.real)

    def spread(self, values: Tensor, carriers: float) -> Tensor:
        """Put values of the real features (C, ...) among those that `carriers` get: (F, ...)."""
        result = values.new_full((len(self.real), *values.shape[1:]), carriers)
        result[self.real] = values
        return result

    def then(
        self, value: Tensor, alive: Tensor, read: Callable[[Tensor], Tensor] = _as_they_are
    ) -> Features:
        """Return what an operation on each feature alone makes of these."""
        value = value.masked_fill(alive, 0.0)
        return replace(self, value=value, alive=alive, reads=[(self, read)])


@dataclass(eq=False)
class Layer:
    """A linear layer or convolution without groups; its tensors are float64 and have carriers."""

    name: str  # of the weight
    module: Any
    padded: bool  # with zeros
    source: Features
    target: Features
    weight: Tensor  # (target F, source F, *kernel)
    mask: Tensor  # bool, like weight
    bias: Tensor  # (target F,); 0 where the module has none


@dataclass(eq=False)
class PerChannel:
    """A BatchNorm or depthwise convolution; its tensors are float64 and have carriers."""

    module: Any
    target: Features
    tensors: dict[str, Tensor]  # by attribute of the module; each (F, ...)
    name: str = ""  # of the weight, if it has a mask
    mask: Tensor | None = None  # bool, like the weight


def over_kernel(weight: Tensor) -> Tensor:
    """Sum a weight (target, source, *kernel) over its kernel: (target, source)."""
    return weight.flatten(2).sum(2) if weight.ndim > 2 else weight


class Channels:
    """Numbers for channels: which of them are the same, and which must stay."""

    def __init__(self) -> None:
        self._same_as: list[int] = []  # a forest; the roots represent
        self._pinned: list[Tensor] = []

    def new(self, count: int) -> Tensor:
        """Return `count` fresh numbers, (count,)."""
        first = len(self._same_as)
        self._same_as.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def unify(self, one: Features, other: Features) -> None:
        """Let the features of two tensors go or stay together, one by one."""
        for a, b in zip(one.channels.tolist(), other.channels.tolist(), strict=True):
            self._same_as[self._find(a)] = self._find(b)

    def pin(self, features: Features) -> None:
        """Let everything stay that the tensor has; what reads it, reads all of it."""
        features.needed[:] = True
        self._pinned.append(features.channels[features.real])

    def resolve(self) -> tuple[Tensor, Tensor]:
        """Return the number that represents each, and whether it is pinned; both (numbers,)."""
        representative = torch.tensor(
            [self._find(c) for c in range(len(self._same_as))], dtype=torch.int64
        )
        pinned = torch.zeros(len(representative), dtype=torch.bool)
        for channels in self._pinned:
            pinned[representative[channels]] = True
        return representative, pinned

    def _find(self, channel: int) -> int:
        while self._same_as[channel] != channel:
            self._same_as[channel] = self._same_as[self._same_as[channel]]
            channel = self._same_as[channel]
        return channel


def choose(
    features: Sequence[Features], layers: Sequence[Layer], channels: Channels
) -> Callable[[Features], Tensor]:
    """Return a function from features to those that the small network has, (F,) bool.

    `features`: of all tensors, each after those that it is computed from. Fills in `needed`.
    """
    for x in reversed(features):
        for source, needed_there in x.reads:
            source.needed |= needed_there(x.needed)
    representative, keep = channels.resolve()
    tensors = [*features, *(layer.source for layer in layers)]
    for x in tensors:
        keep[representative[x.channels[x.real & x.needed & x.alive]]] = True
    padded = [(layer, layer.source) for layer in layers if layer.padded]
    for _, x in padded:
        stuck = x.value[x.carrier] == 0  # no multiple of the carrier is this constant
        keep[representative[x.channels[x.real & x.needed & x.constant & stuck]]] = True

    def kept(x: Features) -> Tensor:
        return keep[representative[x.channels]]

    for layer, x in padded:
        readers = layer.mask[kept(layer.target) & layer.target.needed]
        read = readers.transpose(0, 1).flatten(1).any(1)  # (source F,)
        lost = x.real & x.constant & ~kept(x)
        keep[representative[x.channels[x.carrier[read & lost]]]] = True
    for layer in layers:
        if not kept(layer.target).any():  # but no tensor can be without a channel
            keep[representative[layer.target.channels[-1]]] = True
    return kept

"""Which channels a small network needs: those that are read and vary, and carriers of constants.

A *feature* is one position along the channel dimension of one tensor. Features that must be kept
or removed together have the same *channel* number: for example those before and after a BatchNorm,
or on both sides of an addition. A feature is *dead* if it has the same value for every input and
at every position, else *alive*. It is *needed* if something needed is computed from it. A channel
can be removed if each of its features is dead or not needed: a feature that is not needed has no
effect, and the value of a dead feature is folded into the layers that read it.

Zero padding makes a constant vary at the border, so the bias of a padded convolution cannot absorb
it. For such readers the output of every layer gets one extra feature, its *carrier*: dead, but not
zero. A carrier that is used becomes a channel of the small network and brings all removed
constants to the padded convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _same_features(needed: Tensor) -> Tensor:
    return needed


@dataclass(eq=False)
class Features:
    """The F features of one tensor, carriers included, in their order along dimension `dim`."""

    dim: int
    channels: Tensor  # (F,) int64, the channel of each feature
    real: Tensor  # (F,) bool, False for carriers
    carrier: Tensor  # (F,) int64, the position of each feature's carrier among these F
    alive: Tensor  # (F,) bool
    value: Tensor  # (F,) float64, the constant value of a dead feature; 0 where alive
    # the tensors that these are computed from, each with a function:
    # needed features of this tensor (F,) -> needed features of that tensor
    reads: Sequence[tuple[Features, Callable[[Tensor], Tensor]]] = ()
    needed: Tensor = field(init=False)  # (F,) bool

    def __post_init__(self) -> None:
        self.needed = torch.zeros_like(self.real)

    @property
    def constant(self) -> Tensor:
        """(F,) bool: dead but not 0, so that zero padding makes it vary."""
        return ~self.alive & (self.value != 0)

    def matches(self, other: Features) -> bool:
        """Return whether the features of two tensors correspond one to one."""
        return self.dim == other.dim and torch.equal(self.real, other.real)

    def spread(self, values: Tensor, carriers: float) -> Tensor:
        """Extend values of the real features (C, ...) to all features (F, ...).

        `carriers`: the value for every carrier.
        """
        result = values.new_full((len(self.real), *values.shape[1:]), carriers)
        result[self.real] = values
        return result

    def then(
        self, value: Tensor, alive: Tensor, read: Callable[[Tensor], Tensor] = _same_features
    ) -> Features:
        """Return the features after an operation that treats each feature separately."""
        value = value.masked_fill(alive, 0.0)
        return replace(self, value=value, alive=alive, reads=[(self, read)])


@dataclass(eq=False)
class Layer:
    """A linear layer or ungrouped convolution; its tensors are float64 and include carriers."""

    name: str  # of the weight
    module: Any
    padded: bool  # with zeros
    source: Features
    target: Features
    weight: Tensor  # (target F, source F, *kernel)
    mask: Tensor  # bool, like weight
    bias: Tensor  # (target F,); 0 where the module has no bias


@dataclass(eq=False)
class PerChannel:
    """A BatchNorm or depthwise convolution; its tensors are float64 and include carriers."""

    module: Any
    target: Features
    tensors: dict[str, Tensor]  # by attribute of the module; each (F, ...)
    name: str = ""  # of the weight, if it has a mask
    mask: Tensor | None = None  # bool, like the weight


def over_kernel(weight: Tensor) -> Tensor:
    """Sum a weight (target, source, *kernel) over its kernel: (target, source)."""
    return weight.flatten(2).sum(2) if weight.ndim > 2 else weight


class Channels:
    """Channel numbers: which of them mean the same channel, and which must be kept."""

    def __init__(self) -> None:
        self._same_as: list[int] = []  # a union-find forest; the roots represent
        self._pinned: list[Tensor] = []

    def new(self, count: int) -> Tensor:
        """Return `count` new channel numbers, (count,)."""
        first = len(self._same_as)
        self._same_as.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def unify(self, one: Features, other: Features) -> None:
        """Keep or remove the features of two tensors together, one by one."""
        for a, b in zip(one.channels.tolist(), other.channels.tolist(), strict=True):
            self._same_as[self._find(a)] = self._find(b)

    def pin(self, features: Features) -> None:
        """Keep all channels of a tensor, because its reader may use all of them."""
        features.needed[:] = True
        self._pinned.append(features.channels[features.real])

    def resolve(self) -> tuple[Tensor, Tensor]:
        """Return the number that represents each channel, and whether it is pinned."""
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

    `features`: of all tensors, in the order of computation. Fills in `needed` of each.
    """
    for x in reversed(features):
        for source, needed_in_source in x.reads:
            source.needed |= needed_in_source(x.needed)
    representative, keep = channels.resolve()
    tensors = [*features, *(layer.source for layer in layers)]
    for x in tensors:
        keep[representative[x.channels[x.real & x.needed & x.alive]]] = True
    padded = [(layer, layer.source) for layer in layers if layer.padded]
    for _, x in padded:
        irreplaceable = x.value[x.carrier] == 0  # no multiple of the carrier is this constant
        keep[representative[x.channels[x.real & x.needed & x.constant & irreplaceable]]] = True

    def kept(x: Features) -> Tensor:
        return keep[representative[x.channels]]

    for layer, x in padded:
        readers = layer.mask[kept(layer.target) & layer.target.needed]
        read = readers.transpose(0, 1).flatten(1).any(1)  # (source F,)
        lost = x.real & x.constant & ~kept(x)
        keep[representative[x.channels[x.carrier[read & lost]]]] = True
    for layer in layers:
        if not kept(layer.target).any():  # a tensor must have at least one channel
            keep[representative[layer.target.channels[-1]]] = True
    return kept

"""`Model`: options, and `build`, which returns an initialised network."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from debiasbench.common.errors import OptionError

if TYPE_CHECKING:
    from torch import Generator, nn

    from debiasbench.core.head import Head
    from debiasbench.core.inputs import Inputs
    from debiasbench.core.tokenizer import Tokenizer


@dataclass(frozen=True)
class Shape:
    """The shape of one sample, and the number of classes, which a network must fit.

    `input`: shape of one sample, (C, H, W) for images. `inputs`: for a task whose inputs are a
    mapping, the shape of each tensor of a sample by name; then `input` is ().
    """

    input: tuple[int, ...]
    classes: int
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def features(self) -> int:
        """Number of values in one sample."""
        return sum(math.prod(shape) for shape in (self.inputs or {"": self.input}).values())


@dataclass(frozen=True)
class Model(ABC):
    """A kind of network: a frozen dataclass whose fields are its options, with `build`.

    `revision`: increase it when the same options give another network; see `Method`. `packages`:
    those that it needs beside debiasbench, whose versions are written into records.
    """

    citation: ClassVar[str] = ""
    revision: ClassVar[int] = 1
    packages: ClassVar[Sequence[str]] = ()

    @abstractmethod
    def build(self, shape: Shape) -> nn.Module:
        """Return a network that maps (B, *shape.input) float to logits (B, shape.classes).

        If `shape.inputs` is not empty, the network is called with a mapping of tensors. torch's
        global generator is seeded before the call, so the usual initialisation is reproducible.

        A network may have a method `parameter_groups()` like that of `Objective`, for parameters
        that are trained with other settings whatever the method, such as biases without weight
        decay. Its factors are multiplied with those of the method.
        """

    def tokenizer(self) -> Tokenizer | None:
        """Return what reads texts for the network; None for a network that reads no texts."""
        return None

    def skeleton(self, shape: Shape) -> nn.Module:
        """Return the network of `build`, with any weights: they are replaced by stored ones.

        By default `build`. Override it if `build` downloads weights, because `debiasbench export`
        must work without a network connection.
        """
        return self.build(shape)

    def example(self, shape: Shape, samples: int, rng: Generator) -> Inputs:
        """Return random inputs (B, ...), on which an exported network is compared and timed.

        By default uniform in [0, 1). Override it for a network that needs others, such as ids.
        """
        import torch

        drawn = {
            name: torch.rand(samples, *of_one, generator=rng)
            for name, of_one in (shape.inputs or {"": shape.input}).items()
        }
        return drawn if shape.inputs else drawn[""]

    def head(self, network: nn.Module) -> Head:
        """Return the last linear layer, whose input (B, D) `lab.features` returns.

        By default the last `nn.Linear` of the network, or the last 1x1 `nn.Conv2d` if there is no
        `nn.Linear`. Override it if that is the wrong layer.
        """
        from debiasbench.core.head import last_linear

        head = last_linear(network)
        if head is None:
            raise OptionError(
                f"{type(network).__name__} has no nn.Linear and no 1x1 nn.Conv2d whose input could "
                f"be the features. Use another --model, or override `head` in {type(self).__name__}"
            )
        return head

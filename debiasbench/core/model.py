"""What a model is: options, and `build`, which makes an initialised network."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from debiasbench.common.errors import OptionError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Shape:
    """What a network must fit: the shape of one sample, and the number of classes.

    `input`: shape of one sample, (C, H, W) for images. `inputs`: where a task's inputs are a
    mapping, the shape of each of its tensors by name; `input` is () then.
    """

    input: tuple[int, ...]
    classes: int
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def features(self) -> int:
        """Numbers in one sample."""
        return sum(math.prod(shape) for shape in (self.inputs or {"": self.input}).values())


@dataclass(frozen=True)
class Model(ABC):
    """A kind of network: a frozen dataclass whose fields are its options, and a `build`."""

    citation: ClassVar[str] = ""

    @abstractmethod
    def build(self, shape: Shape) -> nn.Module:
        """Make a network that maps (B, *shape.input) float to logits (B, shape.classes).

        Where `shape.inputs` is not empty, the network is called with a mapping of tensors.
        `build` is called under a seeded generator, so the usual initialisation is reproducible.
        """

    def head(self, network: nn.Module) -> nn.Linear:
        """Return the last linear layer; its input (B, D) is what `lab.features` returns.

        The default is the last `nn.Linear` of the network; override it where that is wrong.
        """
        from torch import nn

        for module in reversed(list(network.modules())):
            if isinstance(module, nn.Linear):
                return module
        raise OptionError(
            f"{type(network).__name__} has no nn.Linear whose input could be the features: "
            f"give {type(self).__name__} a `head` method"
        )

"""What a model is: options, and `build`, which makes a freshly initialised network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from debiasbench.common.errors import OptionError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Shape:
    """What a network must fit: one sample's shape, without the batch, and the classes."""

    input: tuple[int, ...]  # (C, H, W) for images
    classes: int

    @property
    def features(self) -> int:
        """Numbers in one sample."""
        product = 1
        for size in self.input:
            product *= size
        return product


@dataclass(frozen=True)
class Model(ABC):
    """A kind of network: a frozen dataclass whose fields are its options, and a `build`."""

    citation: ClassVar[str] = ""

    @abstractmethod
    def build(self, shape: Shape) -> nn.Module:
        """Make a network that maps (B, *shape.input) float to logits (B, shape.classes).

        It is called under a seeded generator, so the usual initialisation is reproducible.
        """

    def head(self, network: nn.Module) -> nn.Linear:
        """Return the last linear layer, whose input (B, D) is what `lab.features` gives.

        The default is the last `nn.Linear` of the network; override it where that is wrong.
        """
        from torch import nn

        for module in reversed(list(network.modules())):
            if isinstance(module, nn.Linear):
                return module
        raise OptionError(
            f"{type(network).__name__} has no nn.Linear to take features from: "
            f"give {type(self).__name__} a `head` method"
        )

"""The multi-layer perceptron of DisEnt for CMNIST; accepts samples of any shape."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from debiasbench.common.errors import OptionError
from debiasbench.common.options import option
from debiasbench.core.model import Model, Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class MLP(Model):
    """Linear layers with ReLU between them, applied to the flattened sample."""

    citation: ClassVar[str] = (
        "Lee et al. Learning Debiased Representation via Disentangled Feature Augmentation. "
        "NeurIPS 2021."
    )

    hidden: tuple[int, ...] = option(
        (100, 100, 16), "units of each hidden layer, such as [100, 16]", ge=1
    )
    depth: int | None = option(
        None,
        "number of hidden layers: the first ones of `hidden`, further ones like its last one; "
        "none: those of `hidden`",
        ge=1,
        absent=None,
    )

    def build(self, shape: Shape) -> nn.Module:
        """Flatten, hidden layers followed by ReLU, and a linear layer to the classes."""
        from torch import nn

        hidden = self.hidden
        if self.depth is not None:
            if not hidden:
                raise OptionError(f"mlp: depth={self.depth} needs the units of a layer in `hidden`")
            hidden = (hidden + hidden[-1:] * self.depth)[: self.depth]
        sizes = (shape.features, *hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], shape.classes))

"""The multi-layer perceptron of DisEnt for CMNIST; accepts samples of any shape."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

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

    def build(self, shape: Shape) -> nn.Module:
        """Flatten, hidden layers followed by ReLU, and a linear layer to the classes."""
        from torch import nn

        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise((shape.features, *self.hidden)):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
        last = self.hidden[-1] if self.hidden else shape.features
        return nn.Sequential(*layers, nn.Linear(last, shape.classes))

"""What is minimised: a module from batch to loss that also knows how to predict."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from debiasbench.core.data import Batch


class Objective(nn.Module):
    """A loss over batches around the network that classifies.

    State of the loss (moving averages, group weights) belongs in buffers, and further networks
    in submodules: the engine moves, saves and optimises what it finds here.

    `additive`: the loss is the mean of its samples' losses, whatever else is in the batch. Such a
    batch may be computed in parts, one after the other or by several processes.
    """

    additive: ClassVar[bool] = False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar."""

    def predict(self, x: Tensor) -> Tensor:
        """Return logits (B, C) for inputs (B, *input)."""
        logits: Tensor = self.network(x)
        return logits


class CrossEntropy(Objective):
    """Mean cross-entropy of one network: what `lab.train` makes of a plain network."""

    additive: ClassVar[bool] = True

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean cross-entropy."""
        return F.cross_entropy(self.network(batch.x), batch.y)

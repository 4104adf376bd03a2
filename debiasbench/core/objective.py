"""`Objective`: a module that maps a batch to the loss to minimise, and predicts."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from debiasbench.core.data import Batch
    from debiasbench.core.inputs import Inputs


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters whose learning rate and weight decay are those of the stage times a factor.

    `lr`, `weight_decay`: factors >= 0. The schedule of the stage applies to all groups.
    """

    parameters: Sequence[nn.Parameter]
    lr: float = 1.0
    weight_decay: float = 1.0


class Objective(nn.Module):
    """A loss of batches, with the network that classifies.

    Keep the state of the loss (moving averages, group weights) in buffers that change in place,
    and further networks in submodules: the trainer moves, saves and optimises them.

    `additive`: whether the loss is a mean over samples, and the loss of a sample does not depend
    on the other samples. Then a batch can be computed in parts, one after the other or by several
    processes.

    `capturable`: whether `forward` does the same in every step, so that a GPU can replay it without
    Python: no counters or branches in Python, no random numbers of Python or NumPy, and nothing
    that waits for the device, such as `item()`. It holds for the class that declares it, not for
    subclasses. False: steps are tried, and computed without graphs if they cannot be replayed. What
    changes after hundreds of steps cannot be found by a trial: then set it to None, and steps are
    never replayed.
    """

    additive: ClassVar[bool] = False
    capturable: ClassVar[bool | None] = False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar."""

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Return groups of parameters that are trained with other settings than the rest.

        By default there are none. Parameters in no group have the settings of the stage. A network
        may ask for groups too, see `Model.build`.
        """
        return ()

    def predict(self, x: Inputs) -> Tensor:
        """Return logits (B, C) for inputs (B, ...)."""
        logits: Tensor = self.network(x)
        return logits


class CrossEntropy(Objective):
    """Mean cross-entropy of one network; `lab.train` wraps a plain network in it."""

    additive: ClassVar[bool] = True
    capturable: ClassVar[bool | None] = True

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean cross-entropy."""
        return F.cross_entropy(self.network(batch.x), batch.y)


def as_objective(module: nn.Module) -> Objective:
    """Return an objective unchanged, and a network as an objective with mean cross-entropy."""
    return module if isinstance(module, Objective) else CrossEntropy(module)

"""Reweighting: multiply the loss of each sample by a weight of its group or class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F

from debiasbench.common.options import option
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective
from debiasbench.core.supervision import Supervision
from debiasbench.parts.balancing import Scheme, group_weights

if TYPE_CHECKING:
    from torch import nn

    from debiasbench.core.data import Batch
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


class WeightedCrossEntropy(Objective):
    """Mean of weight * cross-entropy. `weights`: (N,) of the training samples."""

    additive: ClassVar[bool] = True
    capturable: ClassVar[bool | None] = True
    weights: Tensor  # (N,)

    def __init__(self, network: nn.Module, weights: Tensor) -> None:
        super().__init__(network)
        self.register_buffer("weights", weights.float())

    def forward(self, batch: Batch) -> Tensor:
        """Return the weighted loss, divided by the number of samples."""
        losses = F.cross_entropy(self.network(batch.x), batch.y, reduction="none")  # (B,)
        return (self.weights[batch.index] * losses).mean()


@dataclass(frozen=True)
class Reweight(Method):
    """Reweighting: multiply the loss of a sample by a weight that falls with its group's size."""

    citation: ClassVar[str] = (
        "Japkowicz. The Class Imbalance Problem: Significance and Strategies. IC-AI 2000. "
        "scheme=effective: Cui et al. Class-Balanced Loss Based on Effective Number of Samples. "
        "CVPR 2019. arXiv:1901.05555."
    )

    by: Literal["group", "class"] = option(
        "group", "group: weights of groups; class: weights of classes"
    )
    scheme: Scheme = option(
        "inverse",
        "weight of a group with n samples, up to a factor; inverse: 1 / n; sqrt: 1 / sqrt(n); "
        "effective: 1 / (1 - beta^n)",
    )
    beta: float = option(0.9999, "beta of scheme=effective", gt=0, lt=1)

    @property
    def supervision(self) -> Supervision:
        """The labels that `by` needs."""
        return Supervision(train="groups" if self.by == "group" else "none")

    def fit(self, lab: Lab) -> Trained:
        """Train once with the weighted loss."""
        label = lab.labels(label="group" if self.by == "group" else "y")  # (N,)
        weights = group_weights(label.bincount(), self.scheme, self.beta)[label]
        return lab.train(WeightedCrossEntropy(lab.model(), weights), name="train")

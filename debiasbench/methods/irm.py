"""Invariant risk minimisation: one classifier that is optimal in all environments at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from debiasbench.common.options import option
from debiasbench.common.space import log, uniform
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective
from debiasbench.core.supervision import Supervision
from debiasbench.core.weights import equal_groups
from debiasbench.parts.slopes import slopes

if TYPE_CHECKING:
    from torch import nn

    from debiasbench.core.data import Batch
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained

Penalty = Literal["square", "halves"]


class IRMLoss(Objective):
    """Mean risk of the environments + weight * penalty, divided by the weight if it is above 1.

    `environments`: number of values of the bias attribute. The slope of an environment is the
    derivative of its risk with respect to a factor of the logits, at 1. `penalty`: "square", its
    square; "halves", the product of the slopes of two halves of the environment's samples. `weight`
    is used from `anneal` on, a fraction of the training; before, the weight is 1.
    """

    capturable: ClassVar[bool | None] = True

    def __init__(
        self,
        network: nn.Module,
        environments: int,
        weight: float,
        anneal: float,
        penalty: Penalty = "square",
    ) -> None:
        super().__init__(network)
        self.environments, self.weight = environments, weight
        self.anneal, self.penalty = anneal, penalty

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of a batch; environments without samples in it are left out."""
        z = self.network(batch.x).float()  # (B, C)
        weight = torch.where(batch.progress >= self.anneal, self.weight, 1.0)
        losses = F.cross_entropy(z, batch.y, reduction="none")  # (B,)
        risk = self._mean(_means(losses, batch.bias, self.environments), batch)
        penalty = self._mean(self._penalties(slopes(z, batch.y), batch.bias), batch)
        return (risk + weight * penalty) / weight.clamp(min=1)

    def _penalties(self, slope: Tensor, environment: Tensor) -> Tensor:
        """Return (E,) penalties of slopes (B,)."""
        if self.penalty == "square":
            return _means(slope, environment, self.environments).square()
        earlier = (environment == environment[:, None]).tril(-1).sum(1)  # (B,) samples before
        half = 2 * environment + earlier % 2
        of_halves = _means(slope, half, 2 * self.environments).view(-1, 2)  # (E, 2)
        return of_halves[:, 0] * of_halves[:, 1]

    def _mean(self, values: Tensor, batch: Batch) -> Tensor:
        """Return the mean of values (E,) over the environments in a batch."""
        present = torch.zeros_like(values).index_fill(0, batch.bias, 1.0)
        return (present * values).sum() / present.sum()


def _means(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Return (groups,) means of values (B,); 0 for groups without samples."""
    zeros = values.new_zeros(groups)
    count = zeros.index_add(0, group, torch.ones_like(values))
    return zeros.index_add(0, group, values) / count.clamp(min=1)


@dataclass(frozen=True)
class IRM(Method):
    """IRM: penalise a classifier that would gain from a change in one environment.

    The environments are the values of the bias attribute.
    """

    citation: ClassVar[str] = "Arjovsky et al. Invariant Risk Minimization. 2019. arXiv:1907.02893."
    supervision = Supervision(train="groups")

    penalty_weight: float = option(
        1e4, "weight of the penalty after annealing (lambda)", ge=0, search=log(0.1, 1e5)
    )
    penalty_anneal: float = option(
        0.2,
        "fraction of the training after which penalty_weight replaces the weight 1",
        ge=0,
        le=1,
        search=uniform(0, 0.9),
    )
    penalty: Literal["square", "halves"] = option(
        "square",
        "square: the squared slope of each environment, as in the authors' code; halves: the "
        "product of the slopes of two halves of its samples, as in DomainBed, whose mean over "
        "batches is that of the whole data, but which can be negative",
    )
    sampling: Literal["balanced", "uniform"] = option(
        "balanced", "balanced: draw all environments equally often; uniform: as ERM"
    )

    def fit(self, lab: Lab) -> Trained:
        """Train once with the penalised risk."""
        weights = equal_groups(lab.labels(label="bias")) if self.sampling == "balanced" else None
        loss = IRMLoss(
            lab.model(), lab.num_biases, self.penalty_weight, self.penalty_anneal, self.penalty
        )
        return lab.train(loss, weights=weights, name="train")

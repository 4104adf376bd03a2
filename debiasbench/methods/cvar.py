"""CVaR-DRO: minimise the mean of the worst fraction of losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn import functional as F

from debiasbench.common.options import option
from debiasbench.common.space import log
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor, nn

    from debiasbench.core.data import Batch
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


class CVaRLoss(Objective):
    """Conditional value at risk of the losses of a batch, at level `alpha` in (0, 1].

    `reg`: strength of the penalty for weights that are not uniform; 0: none.
    """

    capturable: ClassVar[bool | None] = True

    def __init__(self, network: nn.Module, alpha: float, reg: float = 0.0) -> None:
        super().__init__(network)
        self.alpha, self.reg = alpha, reg

    def forward(self, batch: Batch) -> Tensor:
        """Return <p, v> - reg * KL(p || uniform) for the losses v and their worst weights p."""
        losses = F.cross_entropy(self.network(batch.x), batch.y, reduction="none")  # (B,)
        v = losses.sort(descending=True).values
        if self.reg == 0:
            return (v * worst_weights(v, self.alpha)).sum()
        p = soft_weights(v.detach(), self.alpha, self.reg)
        divergence: Tensor = torch.special.xlogy(p, len(p) * p).sum()
        return (v * p).sum() - self.reg * divergence


def worst_weights(v: Tensor, alpha: float) -> Tensor:
    """Return (B,) weights 1 / (alpha * B) of the largest alpha * B losses, which sum to 1.

    `v`: (B,) losses, the largest first. The last one that counts may count as a fraction.
    """
    size = max(1.0, alpha * len(v))
    return (size - torch.arange(len(v), device=v.device)).clamp(0, 1) / size


def soft_weights(v: Tensor, alpha: float, reg: float) -> Tensor:
    """Return (B,) weights min(exp((v - eta) / reg) / B, 1 / (alpha * B)), which sum to 1.

    `v`: (B,) losses, the largest first. The authors find eta by bisection. It is exact here: if the
    k largest are at the bound, the others share what is left in proportion to exp(v / reg); the
    smallest k is right for which none of the others exceeds the bound.
    """
    rank, z = torch.arange(len(v), device=v.device), v / reg
    bound = 1 / max(1.0, alpha * len(v))
    others = rank >= rank[:, None]  # (k, B)
    total = z.expand(len(v), -1).where(others, -torch.inf).logsumexp(1)  # (k,)
    left = 1 - rank * bound  # (k,)
    fits = left * (z - total).exp() <= bound * (1 + 1e-6)  # (k,)
    k = rank.where(fits, len(v) - 1).min().view(1)  # an index of shape () would be read back
    return torch.where(rank < k, bound, left[k] * (z - total[k]).exp())


@dataclass(frozen=True)
class CVaRDRO(Method):
    """CVaR-DRO: minimise the mean of the worst fraction of each batch's losses."""

    citation: ClassVar[str] = (
        "Levy et al. Large-Scale Methods for Distributionally Robust Optimization. NeurIPS 2020. "
        "arXiv:2010.05893."
    )

    alpha: float = option(
        0.1, "fraction of the losses of a batch that is minimised", gt=0, le=1, search=log(0.01, 1)
    )
    reg: float = option(
        0.0, "strength of the KL penalty for weights that differ from uniform ones", ge=0
    )

    def fit(self, lab: Lab) -> Trained:
        """Train once with the CVaR loss."""
        return lab.train(CVaRLoss(lab.model(), self.alpha, self.reg), name="train")

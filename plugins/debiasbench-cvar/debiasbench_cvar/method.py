"""CVaR-DRO: minimise the mean of the worst fraction of losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch.nn import functional as F

from debiasbench import Method, option
from debiasbench.core.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor, nn

    from debiasbench import Batch
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


class CVaRLoss(Objective):
    """Conditional value at risk of the losses of a batch, at level `alpha` in (0, 1]."""

    def __init__(self, network: nn.Module, alpha: float) -> None:
        super().__init__(network)
        self.alpha = alpha

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean of the largest alpha * B losses; the last one counts as a fraction."""
        losses = F.cross_entropy(self.network(batch.x), batch.y, reduction="none")  # (B,)
        size = max(1.0, self.alpha * len(batch))
        whole = int(size)
        largest = losses.sort(descending=True).values  # (B,)
        total: Tensor = largest[:whole].sum()
        if whole < len(batch):
            total = total + (size - whole) * largest[whole]
        return total / size


@dataclass(frozen=True)
class CVaRDRO(Method):
    """CVaR-DRO: minimise the mean of the worst fraction of each batch's losses."""

    citation: ClassVar[str] = (
        "Levy, Carmon, Duchi, Sidford. Large-Scale Methods for Distributionally Robust "
        "Optimization. NeurIPS 2020."
    )

    alpha: float = option(0.2, "fraction of the losses of a batch that is minimised", gt=0, le=1)

    def fit(self, lab: Lab) -> Trained:
        """Train once with the CVaR loss."""
        return lab.train(CVaRLoss(lab.model(), self.alpha), name="train")

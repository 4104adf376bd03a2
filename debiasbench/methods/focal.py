"""Focal loss: give less weight to samples that are already classified well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

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


class FocalLoss(Objective):
    """Mean of (1 - p_y)^gamma * cross-entropy (Lin et al., eq. 4)."""

    additive: ClassVar[bool] = True
    capturable: ClassVar[bool | None] = True

    def __init__(self, network: nn.Module, gamma: float) -> None:
        super().__init__(network)
        self.gamma = gamma

    def forward(self, batch: Batch) -> Tensor:
        """Return the focal loss; its gradient also flows through the factor."""
        losses = F.cross_entropy(self.network(batch.x), batch.y, reduction="none")  # (B,)
        # 1 - p_y by expm1: exact near p_y = 1, where the power has an infinite slope for gamma < 1
        rest = (-(-losses).expm1()).clamp(min=1e-12)
        return (rest**self.gamma * losses).mean()


@dataclass(frozen=True)
class Focal(Method):
    """Focal loss: weigh the cross-entropy of a sample by (1 - p_y)^gamma."""

    citation: ClassVar[str] = (
        "Lin et al. Focal Loss for Dense Object Detection. ICCV 2017. arXiv:1708.02002."
    )

    gamma: float = option(
        1.0, "gamma, the exponent of 1 - p_y; 0 is cross-entropy", ge=0, search=log(0.5, 5)
    )

    def fit(self, lab: Lab) -> Trained:
        """Train once with the focal loss."""
        return lab.train(FocalLoss(lab.model(), self.gamma), name="train")

"""Balanced softmax: shift the logits in training by the logarithm of the class sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor
from torch.nn import functional as F

from debiasbench.core.method import Method
from debiasbench.core.objective import Objective

if TYPE_CHECKING:
    from torch import nn

    from debiasbench.core.data import Batch
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


class BalancedSoftmaxLoss(Objective):
    """Cross-entropy of z + log n_c; predictions are z (Ren et al., eq. 3).

    `counts`: (C,) training samples of each class. A class without samples is left out.
    """

    additive: ClassVar[bool] = True
    capturable: ClassVar[bool | None] = True
    shift: Tensor  # (C,)

    def __init__(self, network: nn.Module, counts: Tensor) -> None:
        super().__init__(network)
        self.register_buffer("shift", counts.float().log())

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of the shifted logits."""
        return F.cross_entropy(self.network(batch.x) + self.shift, batch.y)


@dataclass(frozen=True)
class BalancedSoftmax(Method):
    """Balanced softmax: add log n_c to the logits in training, so that rare classes gain."""

    citation: ClassVar[str] = (
        "Ren et al. Balanced Meta-Softmax for Long-Tailed Visual Recognition. NeurIPS 2020. "
        "arXiv:2007.10740."
    )

    def fit(self, lab: Lab) -> Trained:
        """Train once with the shifted logits."""
        counts = lab.labels().bincount(minlength=lab.shape.classes)
        return lab.train(BalancedSoftmaxLoss(lab.model(), counts), name="train")

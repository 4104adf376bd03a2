"""Learning from Failure: a deliberately biased network shows which samples are hard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from debiasbench.common.options import option
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective

if TYPE_CHECKING:
    from torch import nn

    from debiasbench.core.data import Batch
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


class LfFLoss(Objective):
    """Generalised cross-entropy for the biased network, weighted cross-entropy for the other.

    `y`: (N,) training labels. The losses of every sample under both networks are averaged over time
    in a buffer and divided by the largest average of the class, as in the authors' code.
    """

    capturable: ClassVar[bool | None] = True
    y: Tensor  # (N,)
    average: Tensor  # (2, N) moving averages of losses: biased, debiased

    def __init__(
        self, biased: nn.Module, debiased: nn.Module, y: Tensor, q: float, decay: float
    ) -> None:
        super().__init__(debiased)
        self.biased, self.q, self.decay = biased, q, decay
        self.classes = int(y.max()) + 1
        self.register_buffer("y", y)
        self.register_buffer("average", torch.zeros(2, len(y)))

    def forward(self, batch: Batch) -> Tensor:
        """Return the sum of both networks' losses; their gradients do not mix."""
        biased, debiased = self.biased(batch.x), self.network(batch.x)  # (B, C)
        losses = torch.stack(
            [F.cross_entropy(z, batch.y, reduction="none") for z in (biased, debiased)]
        )  # (2, B)
        weight = self._difficulty(losses.detach(), batch)  # (B,)
        p = biased.float().softmax(1).gather(1, batch.y[:, None])[:, 0]  # (B,) of the class
        gce: Tensor = (1 - p.clamp(min=1e-8) ** self.q) / self.q
        return gce.mean() + (weight * losses[1]).mean()

    def _difficulty(self, losses: Tensor, batch: Batch) -> Tensor:
        """Return (B,) W = L_b / (L_b + L_d) in [0, 1], from averaged, class-normalised losses."""
        average = self.average
        if self.training:
            average[:, batch.index] = average[:, batch.index].lerp(losses, 1 - self.decay)
        largest = average.new_zeros(2, self.classes).scatter_reduce(
            1, self.y.expand(2, -1), average, "amax"
        )  # (2, C)
        scaled = average[:, batch.index] / (largest[:, batch.y] + 1e-8)  # (2, B)
        return scaled[0] / (scaled.sum(0) + 1e-8)


@dataclass(frozen=True)
class LfF(Method):
    """Learning from Failure: upweight samples on which a deliberately biased network fails."""

    citation: ClassVar[str] = (
        "Nam et al. Learning from Failure: Training Debiased Classifier from Biased Classifier. "
        "NeurIPS 2020. arXiv:2007.02561."
    )

    q: float = option(0.7, "bias amplification q of the generalised cross-entropy", gt=0, le=1)
    decay: float = option(0.7, "decay of the moving averages of per-sample losses", ge=0, lt=1)

    def fit(self, lab: Lab) -> Trained:
        """Train both networks together."""
        biased, debiased = lab.model(), lab.model()
        loss = LfFLoss(biased, debiased, lab.labels("train"), self.q, self.decay)
        return lab.train(loss, name="train")

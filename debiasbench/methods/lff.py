"""Learning from Failure: a deliberately biased network shows which samples are hard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from debiasbench.common.options import option
from debiasbench.common.space import uniform
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective
from debiasbench.parts.losses import SampleAverages, gce, relative_difficulty

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from debiasbench.core.data import Batch
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


class LfFLoss(Objective):
    """Generalised cross-entropy for the biased network, weighted cross-entropy for the other.

    `y`: (N,) training labels. The losses of every sample under both networks are averaged over time
    and divided by the largest average of the class. `released`: the GCE of the released code.
    """

    capturable: ClassVar[bool | None] = True

    def __init__(
        self,
        biased: nn.Module,
        debiased: nn.Module,
        y: Tensor,
        q: float,
        decay: float,
        *,
        released: bool = False,
    ) -> None:
        super().__init__(debiased)
        self.biased, self.q, self.released = biased, q, released
        self.averages = SampleAverages(y, decay, rows=2)  # of losses: biased, debiased

    def forward(self, batch: Batch) -> Tensor:
        """Return the sum of both networks' losses; their gradients do not mix."""
        biased, debiased = self.biased(batch.x), self.network(batch.x)  # (B, C)
        losses = torch.stack(
            [F.cross_entropy(z, batch.y, reduction="none") for z in (biased, debiased)]
        )  # (2, B)
        weight = self.weights(losses.detach(), batch.index)  # (B,)
        amplified = gce(biased, batch.y, self.q, released=self.released)  # (B,)
        return amplified.mean() + (weight * losses[1]).mean()

    def weights(self, losses: Tensor, index: Tensor) -> Tensor:
        """Return (B,) W = L_b / (L_b + L_d) in [0, 1], from averaged, class-normalised losses.

        `losses`: (2, B), of the samples at `index` (B,).
        """
        if self.training:
            self.averages.update(index, losses)
        return relative_difficulty(*self.averages.by_class(index))


@dataclass(frozen=True)
class LfF(Method):
    """Learning from Failure: upweight samples on which a deliberately biased network fails."""

    citation: ClassVar[str] = (
        "Nam et al. Learning from Failure: Training Debiased Classifier from Biased Classifier. "
        "NeurIPS 2020. arXiv:2007.02561."
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "cmnist": {
            "gce": "released",
            "model": "mlp",
            "model.hidden": [100, 100, 100],
            "model.input_scale": 0.00392157,
            "train.optimizer": "adam",
            "train.lr": 0.001,
            "train.weight_decay": 0.0,
            "train.batch_size": 256,
            "train.epochs": 109,  # 23,500 steps
        },
        "cifar10c": {
            "gce": "released",
            "train.optimizer": "adam",
            "train.lr": 0.001,
            "train.weight_decay": 0.0,
            "train.batch_size": 256,
            "train.epochs": 223,  # 39,200 steps
        },
        "celeba": {
            "gce": "released",
            "train.optimizer": "adam",
            "train.lr": 0.0001,
            "train.weight_decay": 0.0001,
            "train.batch_size": 256,
            "train.epochs": 200,
        },
    }

    q: float = option(
        0.7,
        "bias amplification q of the generalised cross-entropy",
        gt=0,
        le=1,
        search=uniform(0.3, 0.9),
    )
    decay: float = option(
        0.7,
        "decay of the moving averages of per-sample losses",
        ge=0,
        lt=1,
        search=uniform(0.5, 0.99),
    )
    gce: Literal["paper", "released"] = option(
        "paper",
        "generalised cross-entropy; released: of the authors' code, whose gradient is q times that "
        "of the paper, which is a smaller learning rate of the biased network with sgd",
    )

    def fit(self, lab: Lab) -> Trained:
        """Train both networks together."""
        biased, debiased = lab.model(), lab.model()
        y, released = lab.labels("train"), self.gce == "released"
        loss = LfFLoss(biased, debiased, y, self.q, self.decay, released=released)
        trained = lab.train(loss, name="train")
        losses = loss.averages.by_class(torch.arange(len(y)))  # (2, N)
        lab.inferred(scores=relative_difficulty(*losses))  # W after training
        return trained

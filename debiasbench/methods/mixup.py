"""Mixup: train on convex combinations of pairs of samples and of their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch.distributions import Beta
from torch.nn import functional as F

from debiasbench.common.options import option
from debiasbench.common.space import log
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective
from debiasbench.parts.mixing import check_mixable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from debiasbench.core.data import Batch
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


class MixupLoss(Objective):
    """Cross-entropy of mixed inputs, with one mixing factor for each batch."""

    capturable: ClassVar[bool | None] = True
    alpha: Tensor  # a scalar

    def __init__(self, network: nn.Module, alpha: float) -> None:
        super().__init__(network)
        self.register_buffer("alpha", torch.tensor(alpha))

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss with a random factor and partners, drawn from torch's generator."""
        factor = Beta(self.alpha, self.alpha, validate_args=False).sample()
        return self.mixed(batch, factor, torch.randperm(len(batch), device=batch.y.device))

    def mixed(self, batch: Batch, factor: Tensor, partner: Tensor) -> Tensor:
        """Return the loss for a scalar factor in [0, 1] and the partner (B,) of each sample."""
        x = cast("Tensor", batch.x)
        z = self.network(x.lerp(x[partner], 1 - factor))  # (B, C)
        own, other = F.cross_entropy(z, batch.y), F.cross_entropy(z, batch.y[partner])
        return factor * own + (1 - factor) * other


@dataclass(frozen=True)
class Mixup(Method):
    """Mixup: train on convex combinations of pairs of samples and of their labels."""

    citation: ClassVar[str] = (
        "Zhang et al. mixup: Beyond Empirical Risk Minimization. ICLR 2018. arXiv:1710.09412."
    )

    alpha: float = option(
        0.2, "the factor of a batch is drawn from Beta(alpha, alpha)", gt=0, search=log(0.1, 10)
    )

    def fit(self, lab: Lab) -> Trained:
        """Train once on mixed batches; raises `OptionError` for inputs that cannot be mixed."""
        check_mixable(lab.shape, "mixup")
        return lab.train(MixupLoss(lab.model(), self.alpha), name="train")

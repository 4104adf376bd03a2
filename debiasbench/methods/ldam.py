"""LDAM: margins that are larger for rare classes, then also larger weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.common.errors import OptionError
from debiasbench.common.options import option
from debiasbench.common.space import choice, log
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective
from debiasbench.parts.balancing import group_weights

if TYPE_CHECKING:
    from debiasbench.core.data import Batch
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


class CosineHead(nn.Linear):
    """Logits scale * cos(w_c, features), without bias. `scale` is s of the paper.

    It is a buffer, so that these weights are not taken for those of an ordinary layer.
    """

    scale: Tensor  # a scalar

    def __init__(self, features: int, classes: int, scale: float) -> None:
        super().__init__(features, classes, bias=False)
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (..., C) in [-scale, scale] for features (..., D)."""
        # a row can be 0 under a sparse mask; the larger eps keeps its gradient finite
        directions = F.normalize(self.weight, dim=1, eps=1e-3)
        return self.scale * F.linear(F.normalize(x, dim=-1), directions)


class LDAMLoss(Objective):
    """Cross-entropy after scale * margin of the class is taken from the logit of the label.

    `counts`: (C,) training samples of each class. `max_m`: margin of the rarest class. `scale`: s,
    with which the logits of the network are scaled already. From `defer` on, a fraction of the
    training, the mean is weighted by the inverse effective number of samples of the class.
    """

    capturable: ClassVar[bool | None] = True
    margins: Tensor  # (C,)
    weights: Tensor  # (C,) after `defer`

    def __init__(
        self,
        network: nn.Module,
        counts: Tensor,
        *,
        max_m: float = 0.5,
        scale: float = 30.0,
        beta: float = 0.9999,
        defer: float = 0.8,
    ) -> None:
        super().__init__(network)
        self.scale, self.defer = scale, defer
        # a class without samples needs no margin
        raw = torch.where(counts > 0, counts.clamp(min=1).double() ** -0.25, 0.0)
        self.register_buffer("margins", (max_m * raw / raw.max()).float())
        self.register_buffer("weights", group_weights(counts, "effective", beta).float())

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean loss of a batch, weighted in the last part of the training."""
        z = self.network(batch.x).float()  # (B, C)
        y = batch.y[:, None]
        shifted = z.scatter_add(1, y, -self.scale * self.margins[y])  # (B, C)
        weights = torch.where(batch.progress >= self.defer, self.weights, 1.0)  # (C,)
        return F.cross_entropy(shifted, batch.y, weight=weights)


@dataclass(frozen=True)
class LDAM(Method):
    """LDAM-DRW: margins that are larger for rare classes; rare classes weigh more at the end."""

    citation: ClassVar[str] = (
        "Cao et al. Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss. "
        "NeurIPS 2019. arXiv:1906.07413."
    )

    max_m: float = option(
        0.5, "margin of the rarest class, a difference of cosines", ge=0, search=log(0.1, 0.8)
    )
    s: float = option(30.0, "factor of the cosines in the softmax", gt=0, search=choice(10, 30))
    beta: float = option(0.9999, "beta of the effective number of samples", gt=0, lt=1)
    defer: float = option(
        0.8, "fraction of the training after which rare classes weigh more; 1: never", ge=0, le=1
    )

    def fit(self, lab: Lab) -> Trained:
        """Train once, with a normalised last layer."""
        network = lab.model()
        head = lab.head(network)
        if not isinstance(head, nn.Linear):
            raise OptionError(
                f"method ldam replaces a last layer that is an nn.Linear, but this is an "
                f"{type(head).__name__}. Use another --model"
            )
        layer = CosineHead(head.in_features, lab.shape.classes, self.s)
        # directions that are uniform in a cube, as in the authors' code
        nn.init.uniform_(layer.weight, -1, 1, generator=lab.generator("head"))
        with torch.no_grad():
            layer.weight.copy_(F.normalize(layer.weight, dim=1))
        lab.replace_head(network, layer)
        counts = lab.labels().bincount(minlength=lab.shape.classes)
        loss = LDAMLoss(
            network, counts, max_m=self.max_m, scale=self.s, beta=self.beta, defer=self.defer
        )
        return lab.train(loss, name="train")

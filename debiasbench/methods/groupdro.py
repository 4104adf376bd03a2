"""Group DRO: minimise the loss of the worst group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from debiasbench.common.options import option
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective
from debiasbench.core.supervision import Supervision
from debiasbench.core.weights import equal_groups

if TYPE_CHECKING:
    from torch import nn

    from debiasbench.core.data import Batch
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


class GroupDROLoss(Objective):
    """Group losses weighted by q, which grows for groups with a large loss (algorithm 1).

    `counts`: (G,) training samples per group; an empty group has q = 0. `absent_grow`: whether the
    adjustment also raises q of a group without samples in the batch, as in the released code.
    """

    capturable: ClassVar[bool | None] = True
    q: Tensor  # (G,), sums to 1
    margin: Tensor  # (G,), the generalisation adjustment C / sqrt(n_g)

    def __init__(
        self,
        network: nn.Module,
        counts: Tensor,
        step_size: float,
        adjustment: float,
        *,
        absent_grow: bool = False,
    ) -> None:
        super().__init__(network)
        self.step_size, self.absent_grow = step_size, absent_grow
        present = (counts > 0).float()  # (G,)
        self.register_buffer("q", present / present.sum())
        self.register_buffer("margin", adjustment * present / counts.clamp(min=1).sqrt())

    def forward(self, batch: Batch) -> Tensor:
        """Update q by the group losses of the batch, then return the q-weighted loss."""
        losses = F.cross_entropy(self.network(batch.x), batch.y, reduction="none")  # (B,)
        count = torch.zeros_like(self.q).index_add(0, batch.group, torch.ones_like(losses))
        total = torch.zeros_like(self.q).index_add(0, batch.group, losses)
        mean = total / count.clamp(min=1)  # (G,), 0 for groups that are not in the batch
        if self.training:
            gain = mean.detach() + self.margin
            if not self.absent_grow:
                gain = torch.where(count > 0, gain, 0.0)
            self.q.mul_((self.step_size * gain).exp())
            self.q.div_(self.q.sum())
        return (self.q * mean).sum()


@dataclass(frozen=True)
class GroupDRO(Method):
    """Group DRO: weight the group losses by exponentiated gradient ascent."""

    citation: ClassVar[str] = (
        "Sagawa et al. Distributionally Robust Neural Networks for Group Shifts. ICLR 2020. "
        "arXiv:1911.08731."
    )
    supervision = Supervision(train="groups")

    step_size: float = option(0.01, "step size of the group weights q", gt=0)
    adjustment: float = option(0.0, "C of the generalisation adjustment C / sqrt(n_g)", ge=0)
    compat: Literal["none", "released"] = option(
        "none",
        "released: with an adjustment, q of a group that is absent from a batch grows too; none: "
        "it stays, as that of a group that is not drawn in algorithm 1",
        absent="none",
    )
    sampling: Literal["balanced", "uniform"] = option(
        "balanced", "balanced: draw all groups equally often, as in algorithm 1; uniform: as ERM"
    )

    def fit(self, lab: Lab) -> Trained:
        """Train once with the group DRO loss."""
        group = lab.labels(label="group")
        counts = group.bincount(minlength=lab.num_groups)
        return lab.train(
            GroupDROLoss(
                lab.model(),
                counts,
                self.step_size,
                self.adjustment,
                absent_grow=self.compat == "released",
            ),
            weights=equal_groups(group) if self.sampling == "balanced" else None,
            name="train",
        )

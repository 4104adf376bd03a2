"""Group losses, for groups that are labelled and for pseudo-groups that a method infers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from debiasbench.core.objective import Objective

if TYPE_CHECKING:
    from torch import nn

    from debiasbench.core.data import Batch


class GroupDROLoss(Objective):
    """Group losses weighted by q, which grows for groups with a large loss (algorithm 1).

    `counts`: (G,) training samples per group; an empty group has q = 0. `absent_grow`: whether the
    adjustment also raises q of a group without samples in the batch, as in the released code. `by`:
    name of the batch's column of groups, (B,) int64 in [0, G), such as that of pseudo-groups which
    a method gives to `lab.train` as `extra`.

    Sagawa et al. Distributionally Robust Neural Networks for Group Shifts. ICLR 2020.
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
        by: str = "group",
    ) -> None:
        super().__init__(network)
        self.step_size, self.absent_grow, self.by = step_size, absent_grow, by
        present = (counts > 0).float()  # (G,)
        self.register_buffer("q", present / present.sum())
        self.register_buffer("margin", adjustment * present / counts.clamp(min=1).sqrt())

    def forward(self, batch: Batch) -> Tensor:
        """Update q by the group losses of the batch, then return the q-weighted loss."""
        group: Tensor = getattr(batch, self.by)  # (B,)
        losses = F.cross_entropy(self.network(batch.x), batch.y, reduction="none")  # (B,)
        count = torch.zeros_like(self.q).index_add(0, group, torch.ones_like(losses))
        total = torch.zeros_like(self.q).index_add(0, group, losses)
        mean = total / count.clamp(min=1)  # (G,), 0 for groups that are not in the batch
        if self.training:
            gain = mean.detach() + self.margin
            if not self.absent_grow:
                gain = torch.where(count > 0, gain, 0.0)
            self.q.mul_((self.step_size * gain).exp())
            self.q.div_(self.q.sum())
        return (self.q * mean).sum()

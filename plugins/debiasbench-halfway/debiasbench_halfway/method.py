"""Halfway: batches with equal groups; first their mean loss, later the loss of the worst group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn import functional as F

from debiasbench import Method, Objective, Supervision, option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from debiasbench import Batch, Lab, Trained


class EqualBatches:
    """Batches of equally many samples of every group, drawn with replacement.

    `group`: (N,) group of every sample. `size`: at most this many samples in a batch, but at least
    one of each group.
    """

    def __init__(self, group: Tensor, size: int) -> None:
        self.members = [(group == g).nonzero()[:, 0] for g in group.unique()]
        self.each = max(1, size // len(self.members))  # of a group in a batch
        self.count = max(1, len(group) // (self.each * len(self.members)))

    def __call__(self, epoch: int, generator: torch.Generator) -> list[Tensor]:
        """Return an epoch's batches of sample indices; all randomness is in the generator."""
        shape = (self.count, self.each)
        drawn = [m[torch.randint(len(m), shape, generator=generator)] for m in self.members]
        return list(torch.cat(drawn, 1))  # (count, B)


class SwitchedLoss(Objective):
    """Mean loss of the groups in a batch before `switch`, then that of the worst group.

    `groups`: number of groups. `switch`: a fraction of the training.
    """

    capturable: ClassVar[bool | None] = True  # it does the same in every step, also at the switch

    def __init__(self, network: nn.Module, groups: int, switch: float) -> None:
        super().__init__(network)
        self.groups, self.switch = groups, switch

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        losses = F.cross_entropy(self.network(batch.x), batch.y, reduction="none")  # (B,)
        zeros = losses.new_zeros(self.groups)
        count = zeros.index_add(0, batch.group, torch.ones_like(losses))
        mean = zeros.index_add(0, batch.group, losses) / count.clamp(min=1)  # (G,), absent: 0
        average = mean.sum() / (count > 0).sum()
        return torch.where(batch.progress >= self.switch, mean.max(), average)


@dataclass(frozen=True)
class Halfway(Method):
    """Halfway: learn all groups alike, and from half of the training on the worst one."""

    citation: ClassVar[str] = "None: made up as an example of a plugin."
    supervision = Supervision(train="groups")

    switch: float = option(
        0.5, "fraction of the training after which the worst group counts alone", ge=0, le=1
    )

    def fit(self, lab: Lab) -> Trained:
        """Train once, on batches of its own."""
        batches = EqualBatches(lab.labels(label="group"), lab.training.batch_size)
        loss = SwitchedLoss(lab.model(), lab.num_groups, self.switch)
        return lab.train(loss, batches=batches, name="train")

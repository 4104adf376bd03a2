"""Progressive data expansion: begin with balanced groups, then add the other samples slowly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from debiasbench.common.options import option
from debiasbench.common.space import choice
from debiasbench.core.batches import Batches
from debiasbench.core.method import Method
from debiasbench.core.supervision import Supervision

if TYPE_CHECKING:
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class PDE(Method):
    """Progressive data expansion: learn balanced groups first, then add the other samples."""

    citation: ClassVar[str] = (
        "Deng et al. Robust Learning with Progressive Data Expansion Against Spurious "
        "Correlation. NeurIPS 2023. arXiv:2306.04949."
    )
    supervision = Supervision(train="groups")

    warmup_epochs: int = option(
        15,
        "epochs on the balanced subset, before samples are added; none are added in a run that is "
        "not longer",
        ge=1,
    )
    expansion_size: int = option(
        10, "samples that are added at a time", ge=1, search=choice(10, 50, 100)
    )
    expansion_interval: int = option(
        10, "epochs from one addition to the next", ge=1, search=choice(2, 5, 10)
    )
    subsample_cap: int = option(
        0,
        "samples of each group of the subset, if that is more than the smallest group has; smaller "
        "groups are used whole",
        ge=0,
    )
    gamma: float = option(
        1.0,
        "factor of the learning rate after the warm-up; below 1, instead of a schedule",
        gt=0,
        le=1,
    )

    def fit(self, lab: Lab) -> Trained:
        """Train once, on a set that grows."""
        group, size, epochs = (
            lab.labels(label="group"),
            lab.training.batch_size,
            lab.training.epochs,
        )
        order, first = expansion_order(group, self.subsample_cap, lab.generator("subset"))

        def batches_of(epoch: int) -> Batches:
            return Batches(len(group), size, subset=order[: first + self.added(epoch)])

        def batches(epoch: int, rng: torch.Generator) -> list[Tensor]:
            return batches_of(epoch).epoch(rng)

        settings: dict[str, Any] = {}
        if self.gamma < 1 and self.warmup_epochs < epochs:
            steps = [len(batches_of(epoch)) for epoch in range(epochs)]
            end = sum(steps[: self.warmup_epochs]) / sum(steps)
            settings = {"schedule": "step", "milestones": (end,), "decay": self.gamma}
        return lab.train(lab.model(), batches=batches, name="train", **settings)

    def added(self, epoch: int) -> int:
        """Return how many samples have been added by epoch `epoch`, from 0."""
        later = epoch - self.warmup_epochs
        return self.expansion_size * (later // self.expansion_interval + 1) if later >= 0 else 0


def expansion_order(group: Tensor, cap: int, rng: torch.Generator) -> tuple[Tensor, int]:
    """Return (N,) indices in the order in which they are used, and how many are used first.

    The first ones are a random subset with as many samples of every group as the smallest has, or
    `cap` if that is more, and groups with fewer are whole. All others follow in random order, so
    no sample is added twice. `group`: (N,) int64; groups without samples are ignored.
    """
    counts = group.bincount()
    size = max(int(counts[counts > 0].min()), cap)
    order = torch.randperm(len(group), generator=rng)
    by_group = group[order].argsort(stable=True)  # positions in `order`, random within a group
    before = counts.cumsum(0) - counts  # (G,) samples of lower groups
    rank = torch.arange(len(group)) - before[group[order][by_group]]
    later = torch.empty(len(group), dtype=torch.bool)
    later[by_group] = rank >= size
    return torch.cat([order[~later], order[later]]), int((~later).sum())

"""Sampling weights and subsets for methods: upweight conflicting samples, or balance groups.

Pass weights to `Lab.train(..., weights=...)`, where only their ratios matter, and subsets to
`Lab.train(..., subset=...)`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# conflicting fraction of the training split -> lambda (Park et al., CVPR 2023; their code's values)
PUBLISHED = {0.005: 80.0, 0.01: 50.0, 0.02: 30.0, 0.05: 10.0}


def upweight_conflict(conflict: Tensor, weight: float | None = None) -> Tensor:
    """Return (N,) sampling weights: `weight` for conflicting samples, 1 for aligned samples.

    `conflict`: (N,) bool. `weight`: None uses `published_weight` of the conflicting fraction.
    """
    if weight is None:
        weight = published_weight(conflict.float().mean().item())
    return 1 + (weight - 1) * conflict.double()


def equal_groups(group: Tensor) -> Tensor:
    """Return (N,) sampling weights that draw every group equally often.

    `group`: (N,) int64 group ids. Groups without samples are ignored.
    """
    return 1 / group.bincount()[group].double()


def equal_subset(group: Tensor, rng: torch.Generator) -> Tensor:
    """Return (M,) sorted indices of a random subset with equally many samples of every group.

    `group`: (N,) int64 group ids; the smallest group is used whole, groups without samples are
    ignored. `rng`: such as `lab.generator("subset")`.
    """
    import torch

    counts = group.bincount()
    size = counts[counts > 0].min()
    order = torch.randperm(len(group), generator=rng)
    by_group = order[group[order].argsort(stable=True)]  # random order within each group
    first = counts.cumsum(0) - counts  # (G,) position of the first sample of each group
    rank = torch.arange(len(group)) - first[group[by_group]]
    return by_group[rank < size].sort().values


def published_weight(ratio: float) -> float:
    """Return the published weight (lambda) of conflicting samples for their fraction `ratio`.

    `ratio`: conflicting fraction of the training split, in [0, 1]. The published values (Park et
    al., CVPR 2023) apply within a factor of 1.25 of their ratio. For all other ratios the weight
    is (1 - ratio) / (2 * ratio), so that a third of the drawn samples is conflicting.
    """
    for published, weight in PUBLISHED.items():
        if ratio > 0 and abs(math.log(ratio / published)) < math.log(1.25):
            return weight
    return (1 - ratio) / (2 * ratio) if 0 < ratio < 1 else 1.0

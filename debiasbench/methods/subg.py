"""SUBG: train on a subset in which all groups have the same size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from debiasbench.core.method import Method
from debiasbench.core.supervision import Supervision
from debiasbench.core.weights import equal_subset

if TYPE_CHECKING:
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class SUBG(Method):
    """SUBG: train on a random subset with equally many samples of every group."""

    citation: ClassVar[str] = (
        "Idrissi et al. Simple data balancing achieves competitive worst-group-accuracy. "
        "CLeaR 2022. arXiv:2110.14503."
    )
    supervision = Supervision(train="groups")

    def fit(self, lab: Lab) -> Trained:
        """Draw the subset once, and train on it; an epoch is one pass over the subset."""
        subset = equal_subset(lab.labels(label="group"), lab.generator("subset"))  # (M,)
        return lab.train(lab.model(), subset=subset, name="train")

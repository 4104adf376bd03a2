"""SUBY: train on a subset in which all classes have the same size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from debiasbench.core.method import Method
from debiasbench.core.weights import equal_subset

if TYPE_CHECKING:
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class SUBY(Method):
    """SUBY: train on a random subset with equally many samples of every class."""

    citation: ClassVar[str] = (
        "Idrissi et al. Simple data balancing achieves competitive worst-group-accuracy. "
        "CLeaR 2022. arXiv:2110.14503."
    )

    def fit(self, lab: Lab) -> Trained:
        """Draw the subset once, and train on it; an epoch is one pass over the subset."""
        subset = equal_subset(lab.labels(), lab.generator("subset"))  # (M,)
        return lab.train(lab.model(), subset=subset, name="train")

"""RWG: draw all groups equally often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from debiasbench.core.method import Method
from debiasbench.core.supervision import Supervision
from debiasbench.core.weights import equal_groups

if TYPE_CHECKING:
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class RWG(Method):
    """RWG: draw samples with weight 1 / n_g, so that all groups are equally frequent."""

    citation: ClassVar[str] = (
        "Idrissi et al. Simple data balancing achieves competitive worst-group-accuracy. "
        "CLeaR 2022. arXiv:2110.14503."
    )
    supervision = Supervision(train="groups")

    def fit(self, lab: Lab) -> Trained:
        """Train once; an epoch is N draws with replacement."""
        return lab.train(lab.model(), weights=equal_groups(lab.labels(label="group")), name="train")

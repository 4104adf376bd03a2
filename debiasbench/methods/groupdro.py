"""Group DRO: minimise the loss of the worst group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from debiasbench.common.options import option
from debiasbench.common.space import choice, log
from debiasbench.core.method import Method
from debiasbench.core.supervision import Supervision
from debiasbench.core.weights import equal_groups
from debiasbench.parts.groups import GroupDROLoss

if TYPE_CHECKING:
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class GroupDRO(Method):
    """Group DRO: weight the group losses by exponentiated gradient ascent."""

    citation: ClassVar[str] = (
        "Sagawa et al. Distributionally Robust Neural Networks for Group Shifts. ICLR 2020. "
        "arXiv:1911.08731."
    )
    supervision = Supervision(train="groups")

    step_size: float = option(
        0.01, "step size of the group weights q", gt=0, search=log(0.001, 0.1)
    )
    adjustment: float = option(
        0.0,
        "C of the generalisation adjustment C / sqrt(n_g)",
        ge=0,
        search=choice(0, 1, 2, 3, 4, 5),
    )
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

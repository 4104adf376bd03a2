"""Upweighting: draw rare samples more often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from debiasbench.common.errors import OptionError
from debiasbench.common.options import option
from debiasbench.common.space import choice
from debiasbench.core.method import Method
from debiasbench.core.supervision import Supervision
from debiasbench.core.weights import equal_groups, upweight_conflict

if TYPE_CHECKING:
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class Upweight(Method):
    """Upweighting: draw bias-conflicting samples, or small groups, more often."""

    citation: ClassVar[str] = (
        "Sagawa et al. An Investigation of Why Overparameterization Exacerbates Spurious "
        "Correlations. ICML 2020. Lambda: Park et al., CVPR 2023."
    )

    by: Literal["conflict", "group"] = option(
        "conflict",
        "conflict: one weight for all conflicting samples; group: draw all groups equally often",
    )
    weight: float | None = option(
        None,
        "how often a conflicting sample is drawn, relative to an aligned one; none: 80, 50, 30 or "
        "10 at 0.5, 1, 2 or 5 % conflicting samples, otherwise such that a third of the draws is "
        "conflicting",
        gt=0,
        search=choice(10, 30, 50, 80),
    )

    def __post_init__(self) -> None:
        """Raise `OptionError` for a weight that would have no effect."""
        if self.by == "group" and self.weight is not None:
            raise OptionError(
                f"method upweight: weight={self.weight:g} has no effect with by=group: remove it, "
                "or use by=conflict"
            )

    @property
    def supervision(self) -> Supervision:
        """The labels that `by` needs."""
        return Supervision(train="groups" if self.by == "group" else "conflict")

    def fit(self, lab: Lab) -> Trained:
        """Train once on reweighted samples."""
        if self.by == "group":
            weights = equal_groups(lab.labels(label="group"))
        else:
            weights = upweight_conflict(lab.labels(label="conflict"), self.weight)
        return lab.train(lab.model(), weights=weights, name="train")

"""Upweighting: sample the rare side of the bias more often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from debiasbench.common.errors import OptionError
from debiasbench.common.options import option
from debiasbench.core.method import Method, Supervision
from debiasbench.core.weights import equal_groups, upweight_conflict

if TYPE_CHECKING:
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class Upweight(Method):
    """Upweighting: bias-conflicting samples, or rare groups, are drawn more often."""

    citation: ClassVar[str] = (
        "Sagawa et al. An Investigation of Why Overparameterization Exacerbates Spurious "
        "Correlations. ICML 2020. Lambda: Park et al., CVPR 2023."
    )

    by: Literal["conflict", "group"] = option(
        "conflict", "conflict: one weight for all conflicting samples; group: all groups equally"
    )
    weight: float | None = option(
        None,
        "how often a conflicting sample is drawn for one aligned; none: 80, 50, 30, 10 at 0.5, 1, "
        "2, 5 % conflicting, else what makes a third of the draws conflicting",
        gt=0,
    )

    def __post_init__(self) -> None:
        """Raise `OptionError` where a weight is given that nothing would read."""
        if self.by == "group" and self.weight is not None:
            raise OptionError("method upweight: weight goes with by=conflict only")

    @property
    def supervision(self) -> Supervision:
        """What `by` needs."""
        return Supervision(train="groups" if self.by == "group" else "conflict")

    def fit(self, lab: Lab) -> Trained:
        """Train once on reweighted draws."""
        if self.by == "group":
            weights = equal_groups(lab.labels(label="group"))
        else:
            weights = upweight_conflict(lab.labels(label="conflict"), self.weight)
        return lab.train(lab.model(), weights=weights, name="train")

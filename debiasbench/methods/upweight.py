"""Upweighting: sample the rare side of the bias more often."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from debiasbench.common.errors import OptionError
from debiasbench.common.options import option
from debiasbench.core.method import Method
from debiasbench.core.supervision import Supervision

if TYPE_CHECKING:
    from torch import Tensor

    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained

# conflicting fraction of the training split -> lambda (Park et al., CVPR 2023, released defaults)
PUBLISHED = {0.005: 80.0, 0.01: 50.0, 0.02: 30.0, 0.05: 10.0}


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


def upweight_conflict(conflict: Tensor, weight: float | None = None) -> Tensor:
    """(N,) sampling weights: `weight` where (N,) `conflict`, 1 elsewhere.

    `weight` None takes `published_weight` of the conflicting fraction.
    """
    if weight is None:
        weight = published_weight(conflict.float().mean().item())
    return 1 + (weight - 1) * conflict.double()


def equal_groups(group: Tensor) -> Tensor:
    """(N,) sampling weights that draw every group that is there equally often."""
    return 1 / group.bincount()[group].double()


def published_weight(ratio: float) -> float:
    """Return the lambda published for a conflicting fraction, in [0, 1], of the training split.

    Away from the published fractions (by more than a quarter) it is (1 - r) / 2r: a third of
    the draws conflicting, about what the published ones come to.
    """
    for published, weight in PUBLISHED.items():
        if ratio > 0 and abs(math.log(ratio / published)) < math.log(1.25):
            return weight
    return (1 - ratio) / (2 * ratio) if 0 < ratio < 1 else 1.0

"""Selection rules: which epoch to keep. Every rule is followed in the same training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

RULES: dict[str, str | None] = {
    "last": None,
    "val_average": "average",
    "val_unbiased": "unbiased",
    "val_worst_group": "worst_group",
    "val_conflict": "conflict",
}
"""Rule -> the validation metric it maximises; None keeps the last epoch."""

USES_GROUPS = frozenset(r for r, metric in RULES.items() if metric not in {None, "average"})
"""Rules that read the bias labels of the validation split, because their metric uses groups."""


@dataclass
class Tracker:
    """Follow every rule over the epochs of one stage.

    `best`: rule -> (epoch, value) of the epoch that it keeps so far, the earliest of equal ones. A
    rule is absent as long as its metric has been NaN at every epoch.
    """

    best: dict[str, tuple[int, float]] = field(default_factory=dict)

    def update(self, epoch: int, metrics: Mapping[str, float]) -> list[str]:
        """Add the validation metrics after an epoch; return the rules that now keep it.

        A metric that is absent counts as NaN.
        """
        improved = []
        for rule, metric in RULES.items():
            value = math.nan if metric is None else metrics.get(metric, math.nan)
            better = not math.isnan(value) and value > self.best.get(rule, (0, -math.inf))[1]
            if metric is None or better:
                self.best[rule] = (epoch, value)
                improved.append(rule)
        return improved

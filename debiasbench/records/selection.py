"""Selection rules: which epoch to keep. Every rule is followed in the same training.

Whoever changes which epoch a rule keeps increases `debiasbench.specs.revisions.RULES`.
"""

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

    `best`: rule -> (epoch, value) of the epoch that it keeps so far. Of epochs with the same value,
    a rule that reads bias labels keeps the one with the best unbiased accuracy, and of these the
    last: a small group is often wrong throughout, so that `val_worst_group` would keep the first
    and most biased epoch. `val_average` reads no bias labels and keeps the last. A rule is absent
    as long as its metric has been NaN at every epoch.
    """

    best: dict[str, tuple[int, float]] = field(default_factory=dict)
    unbiased: dict[str, float] = field(default_factory=dict)  # rule -> of the epoch that it keeps

    def update(self, epoch: int, metrics: Mapping[str, float]) -> list[str]:
        """Add the validation metrics after an epoch; return the rules that now keep it.

        A metric that is absent counts as NaN.
        """
        improved = []
        unbiased = metrics.get("unbiased", math.nan)
        for rule, metric in RULES.items():
            value = math.nan if metric is None else metrics.get(metric, math.nan)
            if metric is None or self._is_kept(rule, value, unbiased):
                self.best[rule] = (epoch, value)
                self.unbiased[rule] = unbiased
                improved.append(rule)
        return improved

    def _is_kept(self, rule: str, value: float, unbiased: float) -> bool:
        if math.isnan(value):
            return False
        if rule not in self.best or value != self.best[rule][1]:
            return value > self.best.get(rule, (0, -math.inf))[1]
        return rule not in USES_GROUPS or not unbiased < self.unbiased[rule]

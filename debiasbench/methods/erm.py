"""Empirical risk minimisation: the baseline of every other method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from debiasbench.core.method import Method

if TYPE_CHECKING:
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class ERM(Method):
    """Empirical risk minimisation: mean cross-entropy over the training data."""

    citation: ClassVar[str] = "Vapnik. Statistical Learning Theory. Wiley, 1998."

    def fit(self, lab: Lab) -> Trained:
        """Train once."""
        return lab.train(lab.model(), name="train")

"""Just Train Twice: train briefly, then train again on upweighted mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from debiasbench.common.options import option
from debiasbench.core.method import Method

if TYPE_CHECKING:
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class JTT(Method):
    """Just Train Twice: upweight samples that a briefly trained network misclassifies."""

    citation: ClassVar[str] = (
        "Liu et al. Just Train Twice: Improving Group Robustness without Training Group "
        "Information. ICML 2021. arXiv:2107.09044."
    )

    identification_epochs: int = option(1, "epochs of the first network (T)", ge=1)
    upweight: float = option(
        20.0,
        "how often a misclassified sample is drawn, relative to a correct one (lambda_up)",
        gt=0,
    )

    def fit(self, lab: Lab) -> Trained:
        """Find the misclassified samples, then train again from scratch."""
        first = lab.train(
            lab.model(), epochs=self.identification_epochs, name="identify", select=False
        )
        wrong = lab.predict(first, "train").argmax(1) != lab.labels("train")  # (N,)
        weights = 1 + (self.upweight - 1) * wrong.double()
        return lab.train(lab.model(), weights=weights, name="train")

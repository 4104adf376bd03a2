"""CORAL: features whose mean and covariance are the same for all values of the bias attribute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from debiasbench.common.options import option
from debiasbench.common.space import log
from debiasbench.core.method import Method
from debiasbench.core.supervision import Supervision
from debiasbench.parts.alignment import AlignedFeatures, coral

if TYPE_CHECKING:
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class CORAL(Method):
    """CORAL: align means and covariances of the features of all values of the bias attribute."""

    citation: ClassVar[str] = (
        "Sun, Saenko. Deep CORAL: Correlation Alignment for Deep Domain Adaptation. ECCV 2016 "
        "Workshops. arXiv:1607.01719."
    )
    supervision = Supervision(train="groups")

    gamma: float = option(1.0, "weight of the distance between features", ge=0, search=log(0.1, 10))

    def fit(self, lab: Lab) -> Trained:
        """Train once with the penalised loss."""
        loss = AlignedFeatures(lab.model(), lab.features_of, coral, lab.num_biases, self.gamma)
        return lab.train(loss, name="train")

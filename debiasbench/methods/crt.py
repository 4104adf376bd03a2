"""CRT: train ERM, then a new last layer alone on balanced batches."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from debiasbench.common.options import option
from debiasbench.core.method import Method
from debiasbench.core.supervision import Supervision
from debiasbench.core.weights import equal_groups

if TYPE_CHECKING:
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class CRT(Method):
    """CRT: train ERM, then a new last layer on samples of which all groups are equally frequent."""

    citation: ClassVar[str] = (
        "Kang et al. Decoupling Representation and Classifier for Long-Tailed Recognition. "
        "ICLR 2020. arXiv:1910.09217."
    )

    by: Literal["group", "class"] = option(
        "group", "what is drawn equally often for the last layer; class: as the authors do"
    )
    retrain_epochs: int | None = option(
        None, "epochs of the last layer; none: as many as before", ge=1
    )

    @property
    def supervision(self) -> Supervision:
        """The labels that `by` needs."""
        return Supervision(train="groups" if self.by == "group" else "none")

    def fit(self, lab: Lab) -> Trained:
        """Train a network, freeze all but its last layer, and train a new last layer."""
        start = lab.model()
        lab.head(start)  # raises before the training if the head cannot be replaced
        first = copy.deepcopy(lab.train(start, name="representation", select=False))
        network = first.objective.network
        network.requires_grad_(False)  # BatchNorm of frozen parts keeps its statistics
        lab.replace_head(network)
        label = lab.labels(label="group" if self.by == "group" else "y")  # (N,)
        epochs = self.retrain_epochs or lab.training.epochs
        return lab.train(first, weights=equal_groups(label), epochs=epochs, name="classifier")

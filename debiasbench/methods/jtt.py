"""Just Train Twice: train briefly, then train again on upweighted mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from debiasbench.common.errors import OptionError
from debiasbench.common.options import option
from debiasbench.common.space import choice, log
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from debiasbench.core.data import Batch
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class JTT(Method):
    """Just Train Twice: upweight samples that a briefly trained network misclassifies.

    The mistakes are those of the network after T epochs, in evaluation mode. An epoch has as many
    samples as the training split, drawn with replacement, a mistake lambda_up times as often as
    another sample. The released code differs in all three: see `compat`.
    """

    citation: ClassVar[str] = (
        "Liu et al. Just Train Twice: Improving Group Robustness without Training Group "
        "Information. ICML 2021. arXiv:2107.09044."
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "waterbirds": {
            "compat": "released",
            "identification_epochs": 61,
            "upweight": 100.0,
            "dataset.augment": False,
            "model": "resnet50",
            "model.pretrained": True,
            "train.lr": 1e-05,
            "train.weight_decay": 1.0,
            "train.batch_size": 64,
            "train.epochs": 300,
        },
        "celeba": {
            "compat": "released",
            "identification_epochs": 2,
            "upweight": 50.0,
            "dataset.augment": False,
            "model": "resnet50",
            "model.pretrained": True,
            "train.lr": 1e-05,
            "train.weight_decay": 0.1,
            "train.batch_size": 64,
            "train.epochs": 50,
        },
    }

    identification_epochs: int = option(
        1, "epochs of the first network (T)", ge=1, search=choice(1, 2, 5, 10)
    )
    upweight: float = option(
        20.0,
        "how often a misclassified sample is drawn, relative to a correct one (lambda_up)",
        gt=0,
        search=log(4, 100),
    )
    compat: Literal["none", "released"] = option(
        "none",
        "released: mistakes are those made during the last identification epoch, in training mode "
        "and before each step; and an epoch has all samples and, in addition, each mistake "
        "lambda_up times",
        absent="none",
    )

    def __post_init__(self) -> None:
        """Raise `OptionError` for copies of mistakes that are no whole number."""
        if self.compat == "released" and self.upweight != int(self.upweight):
            raise OptionError(
                f"method jtt: upweight={self.upweight} is the number of additional copies of a "
                "mistake with compat=released: give a whole number"
            )

    def fit(self, lab: Lab) -> Trained:
        """Find the misclassified samples, then train again from scratch."""
        if self.compat == "released":
            return self._released(lab)
        first = lab.train(
            lab.model(), epochs=self.identification_epochs, name="identify", select=False
        )
        wrong = lab.predict(first, "train").argmax(1) != lab.labels("train")  # (N,)
        lab.inferred(conflict=wrong)
        weights = 1 + (self.upweight - 1) * wrong.double()
        return lab.train(lab.model(), weights=weights, name="train")

    def _released(self, lab: Lab) -> Trained:
        """Train as the released code does (train.py, process_training.py, run_expt.py)."""
        y = lab.labels("train")
        loss = RunningMistakes(lab.model(), len(y))
        lab.train(loss, epochs=self.identification_epochs, name="identify", select=False)
        lab.inferred(conflict=loss.wrong)
        mistakes = loss.wrong.cpu().nonzero()[:, 0]  # (M,)
        copies = mistakes.repeat(int(self.upweight))
        return lab.train(
            lab.model(), subset=torch.cat([torch.arange(len(y)), copies]), name="train"
        )


class RunningMistakes(Objective):
    """Mean cross-entropy; remembers which samples the network misclassified when last trained on.

    `samples`: N, of the training split. Their predictions are made in training mode and before the
    step that their batch leads to.
    """

    capturable: ClassVar[bool | None] = True
    wrong: Tensor  # (N,) bool

    def __init__(self, network: nn.Module, samples: int) -> None:
        super().__init__(network)
        self.register_buffer("wrong", torch.zeros(samples, dtype=torch.bool))

    def forward(self, batch: Batch) -> Tensor:
        """Note the mistakes in a batch; return the mean cross-entropy."""
        logits = self.network(batch.x)
        self.wrong.index_copy_(0, batch.index, logits.detach().argmax(1) != batch.y)
        return F.cross_entropy(logits, batch.y)

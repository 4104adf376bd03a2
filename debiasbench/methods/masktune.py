"""MaskTune: cover what an ERM network looks at, and train it for one more epoch."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from debiasbench.common.errors import OptionError
from debiasbench.common.options import option
from debiasbench.common.space import uniform
from debiasbench.core.inputs import single
from debiasbench.core.method import Method
from debiasbench.core.supervision import Supervision
from debiasbench.parts.saliency import saliency, unsalient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from debiasbench.core.inputs import Inputs
    from debiasbench.core.lab import Lab
    from debiasbench.core.settings import Training
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class MaskTune(Method):
    """MaskTune: paint the pixels black that an ERM network looks at, and train one epoch more.

    Masks are computed once, of images without augmentation, and cover the stored images, so that
    augmentation moves them with the pixels.
    """

    citation: ClassVar[str] = (
        "Asgari et al. MaskTune: Mitigating Spurious Correlations by Forcing to Explore. NeurIPS "
        "2022. arXiv:2210.00055."
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "waterbirds": {
            "train.lr": 0.0001,
            "train.batch_size": 128,
            "train.epochs": 100,
        },
        "celeba": {
            "train.lr": 0.0001,
            "train.batch_size": 512,
            "train.epochs": 20,
        },
    }

    deviations: float = option(
        2.0,
        "pixels are covered whose heat is more than this number of standard deviations above the "
        "mean",
        ge=0,
        search=uniform(1, 3),
    )
    masks: Literal["last", "best"] = option(
        "last",
        "whose heat is used: that of the last epoch, or that of the epoch with the best average "
        "accuracy on the validation split, as the authors do",
    )
    lr: float | None = option(
        None, "learning rate of the last epoch; none: that to which the schedule has come", gt=0
    )

    @property
    def supervision(self) -> Supervision:
        """Validation labels, if they choose the epoch whose heat is used."""
        return Supervision(val="select" if self.masks == "best" else "none")

    def fit(self, lab: Lab) -> Trained:
        """Train ERM, cover what it looks at, and go on for one epoch."""
        if len(lab.shape.input) != 3:
            named = f"named tensors: {', '.join(lab.shape.inputs)}"
            raise OptionError(
                "method masktune covers pixels, so it needs a data set of images (C, H, W), not of "
                f"{named if lab.shape.inputs else f'samples of shape {lab.shape.input}'}. Use "
                "another method"
            )
        best = self.masks == "best"
        base = lab.train(lab.model(), name="train", select=best, keep_optimizer=True)

        looking = copy.deepcopy(base.objective) if best else base.objective
        if best:
            looking.load_state_dict(base.checkpoints["val_average"].state)
        visible = lab.map(looking, "train", self._visible)  # (N, 1, H, W)

        return lab.train(
            base,
            name="mask",
            epochs=1,
            visible=visible,
            optimizer_of=base,
            lr=self.lr or last_rate(lab.training),
            schedule="constant",
            warmup=0.0,
        )

    def _visible(self, network: nn.Module, x: Inputs) -> Tensor:
        """Return (B, 1, H, W) bool: the pixels that stay."""
        heat = saliency(network, single(x, "method masktune"))
        return unsalient(heat, self.deviations)[:, None]


def last_rate(training: Training) -> float:
    """Return the learning rate of the last epoch, if the schedule changed it between epochs only.

    That of `plateau` is not known before the training, so it is taken as constant.
    """
    before = training.epochs - 1
    done = before / training.epochs  # the fraction of the training before the last epoch
    drops = sum(at <= done for at in training.milestones)
    if not training.milestones:
        drops = before // math.ceil(training.epochs / 3)
    factor = {
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "linear": 1 - done,
        "step": training.decay**drops,
    }
    return training.lr * factor.get(training.schedule, 1.0)

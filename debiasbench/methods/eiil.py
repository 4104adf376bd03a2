"""EIIL: infer environments in which a reference network is not invariant, and balance them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from debiasbench.common.options import option
from debiasbench.common.space import choice, log
from debiasbench.core.method import Method
from debiasbench.core.weights import equal_groups
from debiasbench.parts.groups import GroupDROLoss
from debiasbench.parts.slopes import slopes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class EIIL(Method):
    """Environment inference: split samples where a reference network fails IRM, then group DRO."""

    citation: ClassVar[str] = (
        "Creager et al. Environment Inference for Invariant Learning. ICML 2021. arXiv:2010.07249."
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "waterbirds": {
            "inference_lr": 0.01,
            "inference_steps": 20000,
            "train.lr": 0.001,
            "train.weight_decay": 1.0,
            "train.batch_size": 128,
            "train.epochs": 100,
        },
        "celeba": {
            "inference_lr": 0.01,
            "inference_steps": 20000,
            "train.lr": 0.001,
            "train.weight_decay": 1.0,
            "train.batch_size": 128,
            "train.epochs": 100,
        },
    }

    reference_epochs: int = option(
        1, "epochs of the reference network", ge=1, search=choice(1, 2, 5, 10)
    )
    inference_lr: float = option(0.001, "learning rate of the soft environments, by Adam", gt=0)
    inference_steps: int = option(10_000, "steps in which environments are inferred", ge=1)
    groups: Literal["environment", "class-environment"] = option(
        "environment",
        "groups of group DRO; environment: the two environments; class-environment: each class in "
        "each environment",
    )
    step_size: float = option(
        0.01, "step size of the group weights q", gt=0, search=log(0.001, 0.1)
    )
    adjustment: float = option(0.0, "C of the generalisation adjustment C / sqrt(n_g)", ge=0)

    def fit(self, lab: Lab) -> Trained:
        """Train a reference network, infer environments from its logits, train by group DRO."""
        y = lab.labels("train")
        reference = lab.train(
            lab.model(), epochs=self.reference_epochs, name="reference", select=False
        )
        d = slopes(lab.predict(reference, "train").double(), y)  # (N,)
        start = torch.randn(len(y), generator=lab.generator("environments"), dtype=torch.double)
        environment = environments(d, start, self.inference_lr, self.inference_steps)
        crossed = self.groups == "class-environment"
        groups = 2 * y + environment if crossed else environment  # (N,)
        lab.inferred(groups=groups)
        counts = groups.bincount(minlength=2 * lab.shape.classes if crossed else 2)
        return lab.train(
            GroupDROLoss(lab.model(), counts, self.step_size, self.adjustment, by="pseudo"),
            extra={"pseudo": groups},
            weights=equal_groups(groups),
            name="train",
        )


def environments(d: Tensor, start: Tensor, lr: float, steps: int) -> Tensor:
    """Return (N,) environments 0 and 1, int64, in which the penalty of IRM is large.

    They maximise (a^2 + b^2) / 2, where a and b are the means over all samples of sigmoid(w) d and
    of (1 - sigmoid(w)) d. `d`: (N,) slopes, see `parts.slopes`. `start`: w (N,) at the beginning.
    """
    w, share, mean = start.clone(), d / len(d), d.mean()
    adam = torch.optim.Adam([w], lr=lr, fused=True)
    for _ in range(steps):
        soft = w.sigmoid()
        gap = 2 * soft.dot(share) - mean  # a - b
        w.grad = soft * (1 - soft) * share * -gap
        adam.step()
    return (w.sigmoid() <= 0.5).long()

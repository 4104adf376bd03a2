"""Spread spurious attribute: predict the bias of training samples, then apply group DRO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.common.errors import DataError
from debiasbench.common.options import option
from debiasbench.common.space import choice, log
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective
from debiasbench.core.stage import Beside
from debiasbench.core.supervision import Supervision
from debiasbench.core.weights import equal_groups
from debiasbench.parts.branches import linear_beside, logits_of
from debiasbench.parts.groups import GroupDROLoss

if TYPE_CHECKING:
    from collections.abc import Callable

    from debiasbench.core.data import Batch
    from debiasbench.core.inputs import Inputs
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


class AttributeLoss(Objective):
    """Cross-entropy of the bias value: of labelled samples in `beside`, and of confident guesses.

    The guess for a training sample is used if its probability reaches the threshold of the group
    that it would have. `attribute`: a linear head with A outputs. `features_of`: returns the logits
    and the features of the network. `threshold`: the first threshold of all G groups. `samples`: N,
    of the training split.
    """

    capturable: ClassVar[bool | None] = True
    thresholds: Tensor  # (G,)
    score: Tensor  # (2,) worst-group and mean accuracy of the best epoch so far
    guess: Tensor  # (N,) int64 bias values that the best epoch predicts

    def __init__(
        self,
        network: nn.Module,
        attribute: nn.Linear,
        features_of: Callable[[nn.Module, Inputs], tuple[Tensor, Tensor]],
        threshold: float,
        groups: int,
        samples: int,
    ) -> None:
        super().__init__(network)
        self.attribute, self.features_of = attribute, features_of
        self.register_buffer("thresholds", torch.full((groups,), threshold))
        self.register_buffer("score", torch.full((2,), -1.0))
        self.register_buffer("guess", torch.zeros(samples, dtype=torch.long))

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of labelled samples, plus that of the guesses that are used."""
        labelled, z = (
            self.attribute(self.features_of(self.network, x)[1]).float()
            for x in (batch.beside.x, batch.x)
        )
        confidence, guess = z.detach().softmax(1).max(1)  # (B,)
        group = pseudo_group(batch.y, guess, z.shape[1])
        used = (confidence >= self.thresholds[group]).float()
        losses = F.cross_entropy(z, guess, reduction="none")
        spread = (used * losses).sum() / used.sum().clamp(min=1)
        loss: Tensor = F.cross_entropy(labelled, batch.beside.bias) + spread
        return loss


def pseudo_group(y: Tensor, bias: Tensor, biases: int) -> Tensor:
    """Return the group that samples would have with these bias values; all are (N,) int64."""
    return y * biases + bias


def balanced_thresholds(
    labelled: Tensor, group: Tensor, confidence: Tensor, tau_g_min: float
) -> Tensor:
    """Return (G,) thresholds with which all groups get as many samples as the smallest, at most.

    `labelled`: (G,) numbers of labelled samples. `group`, `confidence`: (N,) guessed groups of
    unlabelled samples, and their probabilities. The smallest labelled group has the threshold
    `tau_g_min`; its labelled samples and those that pass are the limit of every other group.
    Groups without labelled samples are not the smallest. A threshold above 1 lets none pass.
    """
    present = labelled > 0
    smallest = int(torch.where(present, labelled, labelled.max() + 1).argmin())
    passing = (group == smallest) & (confidence >= tau_g_min)
    limit = int(labelled[smallest]) + int(passing.sum())
    thresholds = torch.full((len(labelled),), 2.0)
    for g, n in enumerate(labelled.tolist()):
        ordered = confidence[group == g].sort(descending=True).values
        allowed = min(limit - n, len(ordered))
        if g == smallest:
            thresholds[g] = tau_g_min
        elif allowed > 0:
            thresholds[g] = ordered[allowed - 1]
    return thresholds


@dataclass(frozen=True)
class SSA(Method):
    """Spread spurious attribute: learn bias values from few labels, then apply group DRO."""

    citation: ClassVar[str] = (
        "Nam et al. Spread Spurious Attribute: Improving Worst-group Accuracy with Spurious "
        "Attribute Estimation. ICLR 2022. arXiv:2204.02070."
    )
    supervision = Supervision(val="fit")

    num_splits: int = option(
        3,
        "parts of the training split; the bias values of each are predicted by a network that is "
        "trained without it (K)",
        ge=2,
    )
    tau_g_min: float = option(
        0.95,
        "least probability of a guess that is used, in the smallest group",
        ge=0,
        le=1,
        search=choice(0.9, 0.95, 0.99),
    )
    labeled_valset_size: float = option(
        0.5,
        "fraction of the labelled samples that choose the epoch instead of training",
        gt=0,
        lt=1,
    )
    attribute_epochs: int | None = option(
        None, "epochs of the networks that predict bias values; none: as many as the last", ge=1
    )
    step_size: float = option(
        0.01, "step size of the group weights q of group DRO", gt=0, search=log(0.001, 0.1)
    )
    adjustment: float = option(0.0, "C of the adjustment C / sqrt(n_g) of group DRO", ge=0)

    def fit(self, lab: Lab) -> Trained:
        """Predict the bias value of each part by its own network; train on the groups."""
        y, labelled = lab.labels(), len(lab.labels("val"))
        held = max(1, int(labelled * self.labeled_valset_size))
        if held >= labelled:
            raise DataError(
                "method ssa needs 2 or more samples with bias labels, in the validation split: it "
                f"has {labelled}. Use another method"
            )
        order = torch.randperm(labelled, generator=lab.generator("labelled"))
        check, learn = order[:held], order[held:]
        parts = torch.randperm(len(y), generator=lab.generator("parts")).tensor_split(
            self.num_splits
        )
        bias = torch.zeros_like(y)
        for k, part in enumerate(parts):
            others = torch.cat([p for j, p in enumerate(parts) if j != k])
            bias[part] = self.guesses(lab, k, others, learn, check)[part]
        group = pseudo_group(y, bias, lab.num_biases)  # (N,)
        lab.inferred(groups=group)

        counts = group.bincount(minlength=lab.num_groups)
        loss = GroupDROLoss(lab.model(), counts, self.step_size, self.adjustment, by="pseudo")
        return lab.train(loss, extra={"pseudo": group}, weights=equal_groups(group), name="train")

    def guesses(self, lab: Lab, k: int, others: Tensor, learn: Tensor, check: Tensor) -> Tensor:
        """Return (N,) bias values that a network predicts, trained on the samples `others`.

        `learn`, `check`: indices of labelled samples that train, and that choose the epoch.
        """
        y, val_group = lab.labels(), lab.labels("val", "group")
        val_bias, biases = lab.labels("val", "bias"), lab.num_biases
        counts = val_group[learn].bincount(minlength=lab.num_groups)

        def after_epoch(epoch: int, objective: Objective) -> None:
            loss = cast("AttributeLoss", objective)
            train, val = (
                logits_of(loss.attribute, lab.features(loss, split)).softmax(1)
                for split in ("train", "val")
            )
            confidence, guess = train.max(1)
            score = torch.tensor(
                accuracies(val.argmax(1)[check] == val_bias[check], val_group[check])
            )
            if score.tolist() >= loss.score.tolist():  # the later of equal epochs
                loss.score.copy_(score)
                loss.guess.copy_(guess)
            group = pseudo_group(y, guess, biases)
            loss.thresholds.copy_(
                balanced_thresholds(counts, group[others], confidence[others], self.tau_g_min)
            )

        network = lab.model()
        attribute = linear_beside(lab.head(network), biases, lab.generator(f"attribute {k}"))
        loss = AttributeLoss(
            network, attribute, lab.features_of, self.tau_g_min, lab.num_groups, len(y)
        )
        stage = lab.train(
            loss,
            subset=others,
            beside=Beside(data="val", subset=learn),
            each_epoch=after_epoch,
            epochs=self.attribute_epochs or lab.training.epochs,
            # a plateau would be one of the class labels, which these networks do not learn
            schedule="constant",
            select=False,
            name=f"attribute {k + 1}",
        )
        return cast("AttributeLoss", stage.objective).guess.cpu()


def accuracies(correct: Tensor, group: Tensor) -> tuple[float, float]:
    """Return the lowest accuracy of a group that has samples, and that of all samples.

    `correct`: (N,) bool. `group`: (N,) int64.
    """
    counts = group.bincount()
    each = group.bincount(correct.double())[counts > 0] / counts[counts > 0]
    return float(each.min()), float(correct.double().mean())

"""DisEnt: disentangle intrinsic and biased features, and swap the biased ones between samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.common.options import option
from debiasbench.common.space import log, uniform
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective
from debiasbench.parts.losses import SampleAverages, gce, relative_difficulty

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debiasbench.core.data import Batch
    from debiasbench.core.inputs import Inputs
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


class TwoEncoders(nn.Module):
    """Logits C_i([E_i(x), E_b(x)]): a linear head reads the features of both encoders."""

    def __init__(self, intrinsic: nn.Module, biased: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.intrinsic, self.biased, self.head = intrinsic, biased, head

    def encode(self, x: Inputs) -> tuple[Tensor, Tensor]:
        """Return intrinsic and biased features, (B, D) each."""
        return self.intrinsic(x).flatten(1), self.biased(x).flatten(1)

    def forward(self, x: Inputs) -> Tensor:
        """Return logits (B, C)."""
        logits: Tensor = self.head(torch.cat(self.encode(x), 1))
        return logits


class DisEntLoss(Objective):
    """Weighted cross-entropy of the head C_i and GCE of the head C_b, also of swapped features.

    `network`: predicts; C_i is its head. `biased_head`: C_b, of (B, 2D) features. `y`: (N,)
    training labels. `options`: the weights of the terms.
    """

    capturable: ClassVar[bool | None] = True
    network: TwoEncoders

    def __init__(
        self, network: TwoEncoders, biased_head: nn.Module, y: Tensor, options: DisEnt
    ) -> None:
        super().__init__(network)
        self.biased_head, self.options = biased_head, options
        self.averages = SampleAverages(y, options.ema_alpha, rows=2)  # of losses: C_b, C_i

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss, with a permutation of the batch from torch's generator."""
        order = torch.randperm(len(batch), device=batch.y.device)
        return self.loss(*self.network.encode(batch.x), batch, order)

    def loss(self, z_i: Tensor, z_b: Tensor, batch: Batch, order: Tensor) -> Tensor:
        """Return the loss for features (B, D); `order`: (B,), whose z_b a sample gets."""
        y, options = batch.y, self.options
        u, v = self.heads(z_i, z_b)
        own = F.cross_entropy(u, y, reduction="none")  # (B,)
        weight = self.weights(F.cross_entropy(v, y, reduction="none"), own, batch.index)  # (B,)
        disentangled = (weight * own).mean() + options.lambda_dis * self.amplified(v, y)
        u, v = self.heads(z_i, z_b[order])
        # W is that of the sample whose intrinsic features these are; C_b gets the other's class
        swapped = (weight * F.cross_entropy(u, y, reduction="none")).mean()
        swapped = swapped + options.lambda_swap_b * self.amplified(v, y[order])
        swaps = torch.where(batch.progress > options.swap_from, options.lambda_swap, 0.0)
        return disentangled + swaps * swapped

    def heads(self, z_i: Tensor, z_b: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of C_i and C_b, (B, C) each; only C_b trains E_b, and only C_i E_i."""
        intrinsic = self.network.head(torch.cat([z_i, z_b.detach()], 1))
        return intrinsic, self.biased_head(torch.cat([z_i.detach(), z_b], 1))

    def weights(self, biased: Tensor, own: Tensor, index: Tensor) -> Tensor:
        """Return (B,) W in [0, 1] from averages of the losses (B,) of C_b and C_i."""
        if self.training:
            self.averages.update(index, torch.stack([biased, own]).detach())
        return relative_difficulty(*self.averages.by_class(index))

    def amplified(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean generalised cross-entropy."""
        return gce(logits, y, self.options.q, released=self.options.gce == "released").mean()


_AUTHORS = {
    "gce": "released",
    "train.optimizer": "adam",
    "train.weight_decay": 0.0,
    "train.schedule": "step",
    "train.milestones": [0.4, 0.6, 0.8],
}
_CIFAR10C = {**_AUTHORS, "train.batch_size": 256, "train.epochs": 283, "train.decay": 0.5}


@dataclass(frozen=True)
class DisEnt(Method):
    """DisEnt: disentangle intrinsic and biased features, and swap the biased ones."""

    citation: ClassVar[str] = (
        "Lee et al. Learning Debiased Representation via Disentangled Feature Augmentation. "
        "NeurIPS 2021. arXiv:2107.01372."
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "cmnist": {
            **_AUTHORS,
            "model": "mlp",
            "model.input_scale": 0.00392157,
            "train.lr": 0.01,
            "train.batch_size": 256,
            "train.epochs": 233,
            "train.decay": 0.5,
        },
        "cifar10c": {**_CIFAR10C, "lambda_dis": 5.0, "lambda_swap_b": 5.0, "train.lr": 0.001},
        "cifar10c-0.5": {**_CIFAR10C, "lambda_dis": 1.0, "lambda_swap_b": 1.0, "train.lr": 0.0005},
        "cifar10c-5": {**_CIFAR10C, "lambda_dis": 1.0, "lambda_swap_b": 1.0, "train.lr": 0.001},
        "bffhq": {
            **_AUTHORS,
            "dataset.size": 224,
            "lambda_dis": 2.0,
            "lambda_swap": 0.1,
            "lambda_swap_b": 2.0,
            "train.lr": 0.0001,
            "train.batch_size": 64,
            "train.epochs": 167,
            "train.decay": 0.1,
        },
    }

    lambda_dis: float = option(
        10.0, "weight of the GCE of the biased head", ge=0, search=log(1, 50)
    )
    lambda_swap: float = option(
        1.0, "weight of the loss of swapped features", ge=0, search=log(0.1, 10)
    )
    lambda_swap_b: float = option(10.0, "weight of the GCE in the loss of swapped features", ge=0)
    swap_from: float = option(
        0.2,
        "fraction of the training after which features are swapped (curr_step)",
        ge=0,
        le=1,
        search=uniform(0, 0.5),
    )
    q: float = option(0.7, "bias amplification q of the generalised cross-entropy", gt=0, le=1)
    ema_alpha: float = option(0.7, "decay of the moving averages of per-sample losses", ge=0, lt=1)
    gce: Literal["paper", "released"] = option(
        "paper", "generalised cross-entropy; released: with q times the gradient of the paper"
    )

    def fit(self, lab: Lab) -> Trained:
        """Train two encoders and two heads together; the intrinsic head predicts."""
        encoders = lab.model(), lab.model()
        features = 2 * lab.head(encoders[0]).weight.shape[1]
        for encoder in encoders:
            lab.replace_head(encoder, nn.Identity())
        head, biased_head = (nn.Linear(features, lab.shape.classes) for _ in range(2))
        y = lab.labels("train")
        loss = DisEntLoss(TwoEncoders(*encoders, head), biased_head, y, self)
        trained = lab.train(loss, name="train")
        losses = loss.averages.by_class(torch.arange(len(y)))  # (2, N)
        lab.inferred(scores=relative_difficulty(*losses))  # W after training
        return trained

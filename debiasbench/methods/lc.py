"""Logit correction: add the log-probability of the class given what a biased network guesses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.common.options import option
from debiasbench.common.space import log, uniform
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective, ParameterGroup
from debiasbench.parts.losses import gce
from debiasbench.parts.mixing import check_mixable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from debiasbench.core.data import Batch
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained

Average = Literal["batch", "mv_batch", "mv", "epoch"]
EPS = 1e-4  # of the authors: keeps quotients and logarithms of empty cells finite


class LCLoss(Objective):
    """Corrected cross-entropy of mixed samples, and GCE of the biased network."""

    capturable: ClassVar[bool | None] = True

    def __init__(self, network: nn.Module, biased: nn.Module, classes: int, options: LC) -> None:
        super().__init__(network)
        self.biased, self.options = biased, options
        self.prior = Prior(classes, options.avg_type, options.ema_alpha)

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss, with partners and a factor from torch's generator."""
        options, y, x = self.options, batch.y, cast("Tensor", batch.x)
        z = self.biased(x)  # (B, C)
        p = (z.detach().float() / options.tau).softmax(1)
        guess = p.argmax(1)  # (B,), the pseudo-attribute
        if self.training:
            self.prior.update(y, guess, p.gather(1, y[:, None])[:, 0], batch.epoch)
        prior = self.prior.given(guess)  # (B, C)
        least = mixing(batch.progress, options.ramp)
        factor = 1 - least * (2 - torch.rand_like(least))  # U(1 - 2 alpha, 1 - alpha)
        other = partners(y, guess)
        logits = self.network(x[other].lerp(x, factor))
        biased = gce(z, y, options.q, released=options.gce == "released").mean()
        loss = corrected(logits, prior[other].lerp(prior, factor), y).mean()
        return loss + options.lambda_dis * biased

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Return the biased network, which learns more slowly and without weight decay."""
        parameters = list(self.biased.parameters())
        return [ParameterGroup(parameters, lr=self.options.biased_lr, weight_decay=0.0)]


def corrected(logits: Tensor, prior: Tensor, y: Tensor) -> Tensor:
    """Return (B,) cross-entropies of logits + log(prior), (B, C) both."""
    return F.cross_entropy(logits + (prior + EPS).log(), y, reduction="none")


def mixing(progress: Tensor, ramp: float) -> Tensor:
    """Return alpha in (0, 0.5], which grows until the fraction `ramp` of the training is over."""
    rest = 1 - (progress / ramp).clamp(max=1) if ramp > 0 else torch.zeros_like(progress)
    return 0.5 * (-5 * rest.square()).exp()


def partners(y: Tensor, guess: Tensor) -> Tensor:
    """Return for each sample one of its class in the batch, (B,), from torch's generator.

    It is drawn from those that the biased network guesses wrong, with replacement. If the class has
    none, its samples are permuted. `y`, `guess`: (B,) int64.
    """
    minority = (y[:, None] == y) & (guess != y)  # (B, B): column is in the minority of the row's
    drawn = torch.rand(minority.shape, device=y.device).masked_fill(~minority, -1).argmax(1)
    shuffled = torch.randperm(len(y), device=y.device)
    shuffled = shuffled[y[shuffled].argsort(stable=True)]  # by class, in random order
    permuted = torch.empty_like(shuffled).scatter(0, y.argsort(stable=True), shuffled)
    return torch.where(minority.any(1), drawn, permuted)


class Prior(nn.Module):
    """Matrix Q of averages of p_y, by class y (row) and guess of the biased network (column).

    `average`: what is averaged over: "batch", this batch; "mv_batch", batches, with decay `alpha`
    in [0, 1); "mv", samples in their order, the first of a cell taken whole; "epoch", all samples
    since the epoch began.
    """

    q: Tensor  # (C, C)
    total: Tensor  # (C * C,), of the epoch
    count: Tensor  # (C * C,), of the epoch; for "mv" of the training
    epoch: Tensor  # ()

    def __init__(self, classes: int, average: Average, alpha: float) -> None:
        super().__init__()
        self.average, self.alpha = average, alpha
        self.register_buffer("q", torch.zeros(classes, classes))
        self.register_buffer("total", torch.zeros(classes**2))
        self.register_buffer("count", torch.zeros(classes**2))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))

    def update(self, y: Tensor, guess: Tensor, p: Tensor, epoch: Tensor) -> None:
        """Add the probabilities `p` of the classes `y`, (B,) each, in place."""
        cell, old, alpha = y * len(self.q) + guess, self.q.flatten(), self.alpha
        count = torch.zeros_like(self.count).index_add(0, cell, torch.ones_like(p))
        total = torch.zeros_like(self.total).index_add(0, cell, p)
        match self.average:
            case "batch":
                new = total / (count + EPS)
            case "mv_batch":
                new = alpha * old + (1 - alpha) * total / (count + EPS)
            case "epoch":
                same_epoch = epoch == self.epoch
                self.epoch.copy_(epoch)
                self.total.mul_(same_epoch).add_(total)
                self.count.mul_(same_epoch).add_(count)
                new = self.total / (self.count + EPS)
            case "mv":  # what remains of each sample after those that follow in its cell
                same = cell[:, None] == cell  # (B, B)
                first = (same.tril(-1).sum(1) == 0) & (self.count[cell] == 0)
                share = torch.where(first, 1.0, 1 - alpha) * alpha ** same.triu(1).sum(1)
                new = (alpha**count * old).index_add(0, cell, share * p)
                self.count.add_(count)
        self.q.copy_(new.view_as(self.q))

    def given(self, guess: Tensor) -> Tensor:
        """Return (B, C) columns of Q for guesses (B,), divided by their sums."""
        columns = self.q.T[guess]
        return columns / (columns.sum(1, keepdim=True) + EPS)


@dataclass(frozen=True)
class LC(Method):
    """Logit correction: correct logits by what a biased network guesses, on mixed samples."""

    citation: ClassVar[str] = (
        "Liu et al. Avoiding Spurious Correlations via Logit Correction. ICLR 2023. "
        "arXiv:2212.01433."
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "waterbirds": {
            "gce": "released",
            "model": "resnet50",
            "model.pretrained": True,
            "train.momentum": 0.0,
            "train.lr": 0.001,
            "train.weight_decay": 0.0001,
            "train.batch_size": 32,
            "train.epochs": 300,
            "train.schedule": "step",
            "train.milestones": [0.16667, 0.33333, 0.5, 0.66667, 0.83333],
            "train.decay": 0.1,
        },
    }

    lambda_dis: float = option(
        2.0, "weight of the GCE of the biased network", ge=0, search=log(0.5, 10)
    )
    q: float = option(
        0.8,
        "bias amplification q of the generalised cross-entropy",
        gt=0,
        le=1,
        search=uniform(0.3, 0.9),
    )
    tau: float = option(
        0.1, "temperature of the biased network's probabilities", gt=0, search=log(0.01, 1)
    )
    avg_type: Average = option(
        "batch", "probabilities are averaged over: a batch, batches, samples, or the epoch so far"
    )
    ema_alpha: float = option(0.5, "decay of the averages mv_batch and mv", ge=0, lt=1)
    ramp: float = option(
        0.1667,
        "fraction of the training in which mixing grows (curr_epoch, curr_step)",
        ge=0,
        le=1,
    )
    biased_lr: float = option(0.1, "learning rate of the biased network, relative to lr", gt=0)
    gce: Literal["paper", "released"] = option(
        "paper", "generalised cross-entropy; released: with q times the gradient of the paper"
    )

    def fit(self, lab: Lab) -> Trained:
        """Train both networks; raises `OptionError` for inputs that cannot be mixed."""
        check_mixable(lab.shape, "lc")
        biased, network = lab.model(), lab.model()
        loss = LCLoss(network, biased, lab.shape.classes, self)
        trained = lab.train(loss, name="train")
        y, guess = lab.labels("train"), lab.predict(loss.biased, "train").argmax(1)
        lab.inferred(groups=y * lab.shape.classes + guess, conflict=guess != y)
        return trained

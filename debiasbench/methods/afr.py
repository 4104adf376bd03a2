"""AFR: train on most samples, then refit the last layer on the others, upweighting hard ones."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.common.errors import OptionError
from debiasbench.common.options import option
from debiasbench.common.space import log
from debiasbench.core.method import Method
from debiasbench.core.supervision import Supervision
from debiasbench.parts.heads import set_head

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from debiasbench.core.head import Head
    from debiasbench.core.lab import Lab

    Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AFR(Method):
    """AFR: refit the last layer on held-out training samples, those with a small p_y weigh more.

    All pairs of `gamma` and `reg_coeff` are tried. The pair, and with `early_stopping` the step,
    are those of the best worst-group accuracy on the validation split; ties are broken by the
    average accuracy.
    """

    citation: ClassVar[str] = (
        "Qiu et al. Simple and Fast Group Robustness by Automatic Feature Reweighting. ICML 2023. "
        "arXiv:2306.11074."
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "waterbirds": {
            "model": "resnet50",
            "model.pretrained": True,
            "gamma": [4.0, 8.0, 12.0, 16.0, 20.0],
            "reg_coeff": [0.0, 0.1, 0.2, 0.3],
            "lr": 0.01,
            "steps": 500,
            "train.lr": 0.003,
            "train.weight_decay": 0.0001,
            "train.batch_size": 32,
            "train.epochs": 50,
        },
        "celeba": {
            "model": "resnet50",
            "model.pretrained": True,
            "gamma": [1.0, 1.5, 2.0, 2.5, 3.0],
            "reg_coeff": [0.001, 0.01, 0.1],
            "lr": 0.02,
            "steps": 1000,
            "train.lr": 0.003,
            "train.weight_decay": 0.0001,
            "train.batch_size": 100,
            "train.epochs": 20,
            "train.schedule": "cosine",
        },
    }

    train_prop: float = option(
        0.8, "fraction of the training split for ERM; the rest is for the last layer", gt=0, lt=1
    )
    gamma: tuple[float, ...] = option(
        (1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 20.0),
        "candidates for gamma: how much more samples with a small p_y weigh, exp(-gamma p_y)",
        ge=0,
    )
    reg_coeff: tuple[float, ...] = option(
        (0.0, 0.01, 0.1, 0.3),
        "candidates for lambda, the strength of the penalty on the distance from the ERM head",
        ge=0,
    )
    steps: int = option(500, "steps of full-batch gradient descent on the last layer", ge=1)
    lr: float = option(0.01, "learning rate of these steps", gt=0, search=log(0.001, 0.1))
    grad_norm: float | None = option(
        1.0, "gradients of larger norm are scaled down to this norm; none: no clipping", gt=0
    )
    early_stopping: bool = option(
        True,
        "take the best step, by worst-group accuracy on the validation split; otherwise the last",
    )

    def __post_init__(self) -> None:
        """Raise `OptionError` if there is no gamma or no lambda."""
        for name in ("gamma", "reg_coeff"):
            if not getattr(self, name):
                raise OptionError(f"method afr: {name}=[] leaves nothing to try: give one or more")

    @property
    def supervision(self) -> Supervision:
        """Validation groups, unless nothing is chosen."""
        return Supervision(val="select" if self._chooses else "none")

    @property
    def _chooses(self) -> bool:
        return self.early_stopping or len(self.gamma) * len(self.reg_coeff) > 1

    def fit(self, lab: Lab) -> nn.Module:
        """Train ERM on the first part, and refit its head on the second."""
        start, y = lab.model(), lab.labels("train")
        lab.head(start)  # raises before the training if the head cannot be refitted
        order = torch.randperm(len(y), generator=lab.generator("split"))
        size = min(max(1, round(self.train_prop * len(y))), len(y) - 1)
        first, second = order[:size], order[size:]
        base = lab.train(start, subset=first, name="train", select=False)

        network = copy.deepcopy(base.objective.network)
        head = lab.head(network)
        w0 = _joined(head)  # (C, D + 1)
        x = _extended(lab.features(base, "train"))  # (N, D + 1)
        p = (x @ w0.T).softmax(1).gather(1, y[:, None])[:, 0]  # (N,)
        lab.inferred(scores=1 - p)

        pairs = [(g, r) for g in self.gamma for r in self.reg_coeff]
        mu = torch.stack([sample_weights(p[second], y[second], g) for g, _ in pairs])  # (H, M)
        w, scores = refit(
            w0,
            x[second],
            y[second],
            mu,
            torch.tensor([r for _, r in pairs]).double(),
            steps=self.steps,
            lr=self.lr,
            grad_norm=self.grad_norm,
            score=_score(lab, network) if self._chooses else None,
            early_stopping=self.early_stopping,
        )
        best = max(range(len(pairs)), key=scores.tolist().__getitem__)
        set_head(head, w[best, :, :-1], w[best, :, -1])
        return network


def sample_weights(p: Tensor, y: Tensor, gamma: float) -> Tensor:
    """Return (M,) weights that sum to 1: exp(-gamma p) times M / M_y.

    `p`: (M,) probabilities of the labels `y` (M,).
    """
    mu = (-gamma * p).exp() / y.bincount()[y]
    return mu / mu.sum()


def loss(w: Tensor, w0: Tensor, x: Tensor, y: Tensor, mu: Tensor, reg: Tensor) -> Tensor:
    """Return (H,) losses: mu-weighted cross-entropy + reg * squared distance of `w` from `w0`.

    `w`: (H, C, D) heads. `x`: (M, D). `y`: (M,). `mu`: (H, M). `reg`: (H,).
    """
    own = y[None, :, None].expand(len(w), -1, 1)
    entropy = -(x @ w.mT).log_softmax(2).gather(2, own)[..., 0]  # (H, M)
    return (mu * entropy).sum(1) + reg * (w - w0).pow(2).sum((1, 2))


def refit(
    w0: Tensor,
    x: Tensor,
    y: Tensor,
    mu: Tensor,
    reg: Tensor,
    *,
    steps: int,
    lr: float,
    grad_norm: float | None = None,
    score: Score | None = None,
    early_stopping: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return heads (H, C, D) after gradient descent on `loss`, and their scores (H, 2).

    All H heads start at `w0` (C, D). `score` maps heads to two numbers each, of which the second
    decides if the first are equal; without it, all scores are 0. `early_stopping`: return the heads
    of the step with the best score.
    """
    w = w0.expand(len(mu), -1, -1)
    best = w
    scores = w.new_full((len(mu), 2), -1.0 if score else 0.0)
    for step in range(steps):
        variable = w.detach().requires_grad_()
        with torch.enable_grad():
            total = loss(variable, w0, x, y, mu, reg).sum()  # heads do not depend on each other
        (gradient,) = torch.autograd.grad(total, variable)
        if grad_norm is not None:
            norm = gradient.flatten(1).norm(dim=1)[:, None, None]
            gradient = gradient * (grad_norm / (norm + 1e-6)).clamp(max=1)
        w = w - lr * gradient
        if score is not None and (early_stopping or step == steps - 1):
            new = score(w)
            first, second = (new - scores).unbind(1)
            better = (first > 0) | ((first == 0) & (second > 0))
            best = torch.where(better[:, None, None], w, best)
            scores = torch.where(better[:, None], new, scores)
    return (w if score is None else best), scores


def _score(lab: Lab, network: nn.Module) -> Score:
    """Return a function: heads (H, C, D) -> worst-group and average validation accuracy (H, 2)."""
    x, y = _extended(lab.features(network, "val")), lab.labels("val")
    members = F.one_hot(lab.labels("val", "group")).double()  # (N, G)
    members = members[:, members.any(0)]  # without empty groups
    members /= members.sum(0)

    def score(w: Tensor) -> Tensor:
        correct = ((x @ w.mT).argmax(2) == y).double()  # (H, N)
        return torch.stack([(correct @ members).amin(1), correct.mean(1)], 1)

    return score


# heads are fitted on the CPU in double precision: it takes little time, and small steps count


def _joined(head: Head) -> Tensor:
    """Return (C, D + 1): the weights of a head, and its bias as the last column."""
    weight = head.weight.detach().flatten(1).cpu().double()
    bias = weight.new_zeros(len(weight)) if head.bias is None else head.bias.detach().to(weight)
    return torch.cat([weight, bias[:, None]], 1)


def _extended(features: Tensor) -> Tensor:
    """Return (N, D + 1) features with a last column of ones, whose weight is the bias."""
    return torch.cat([features.double(), torch.ones(len(features), 1).double()], 1)

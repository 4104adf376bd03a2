"""Deep feature reweighting: keep the features of ERM, refit the last layer on balanced groups."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from debiasbench.common.errors import DataError
from debiasbench.common.options import option
from debiasbench.core.method import Method
from debiasbench.core.supervision import Supervision

if TYPE_CHECKING:
    from torch import Tensor, nn

    from debiasbench.core.lab import Lab

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class DFR(Method):
    """Deep feature reweighting: logistic regression on group-balanced validation features."""

    citation: ClassVar[str] = (
        "Kirichenko et al. Last Layer Re-Training is Sufficient for Robustness to Spurious "
        "Correlations. ICLR 2023. arXiv:2204.02937. DFR (val)."
    )
    supervision = Supervision(val="fit")

    retrains: int = option(20, "balanced subsets whose heads are averaged", ge=1)
    strengths: tuple[float, ...] = option(
        (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01),
        "inverse strengths C of the L1 penalty to choose from, by the worst group of half of val",
    )

    def fit(self, lab: Lab) -> nn.Module:
        """Train ERM, choose C on one half of the validation split, refit the head on all of it."""
        base = lab.train(lab.model(), name="train", select=False)
        reference = lab.features(base, "train").double()  # (N, D)
        mean, std = reference.mean(0), reference.std(0).clamp(min=1e-6)
        x = ((lab.features(base, "val").double() - mean) / std).numpy()
        y, group = lab.labels("val").numpy(), lab.labels("val", "group").numpy()
        if len(np.unique(y)) < 2:
            raise DataError("method dfr refits on validation, which has one class only")
        rng = np.random.default_rng(lab.seed)

        half = rng.permutation(len(y)) < len(y) // 2
        part = _balanced(group, half, rng)
        scores = {c: _score(_heads(x[part], y[part], lab.shape.classes, c), x[~half], y[~half],
                            group[~half]) for c in self.strengths}  # fmt: skip
        best = max(scores, key=lambda c: scores[c])

        everything = np.ones(len(y), dtype=bool)
        parts = [_balanced(group, everything, rng) for _ in range(self.retrains)]
        heads = [_heads(x[p], y[p], lab.shape.classes, best) for p in parts]
        weight, bias = (
            np.mean([w for w, _ in heads], axis=0),
            np.mean([b for _, b in heads], axis=0),
        )

        network = copy.deepcopy(base.objective.network)
        _set_head(lab.head(network), torch.from_numpy(weight), torch.from_numpy(bias), mean, std)
        return network


def _balanced(group: Ints, among: NDArray[np.bool_], rng: np.random.Generator) -> Ints:
    """Indices of equally many samples of every group that occurs `among` them."""
    members = [
        rng.permutation(np.flatnonzero(among & (group == g))) for g in np.unique(group[among])
    ]
    fewest = min(len(m) for m in members)
    return np.concatenate([m[:fewest] for m in members])


def _heads(x: Floats, y: Ints, classes: int, strength: float) -> tuple[Floats, Floats]:
    """(C, D) weights and (C,) biases of one L1 logistic regression a class, against the rest."""
    from sklearn.linear_model import LogisticRegression

    weight, bias = np.zeros((classes, x.shape[1])), np.full(classes, -1e4)
    for c in np.unique(y):
        one = LogisticRegression(l1_ratio=1, C=strength, solver="liblinear", random_state=0)
        one.fit(x, y == c)
        weight[c], bias[c] = one.coef_[0], one.intercept_[0]
    return weight, bias  # a class without samples keeps a bias so low that it is never predicted


def _score(head: tuple[Floats, Floats], x: Floats, y: Ints, group: Ints) -> tuple[float, float]:
    """Worst-group and average accuracy; the second decides between equal firsts."""
    weight, bias = head
    right = (x @ weight.T + bias).argmax(1) == y
    return min(right[group == g].mean() for g in np.unique(group)), right.mean()


@torch.no_grad()
def _set_head(head: nn.Linear, weight: Tensor, bias: Tensor, mean: Tensor, std: Tensor) -> None:
    """Put a head for standardised features in place of one for features as they are."""
    head.weight.copy_(weight / std)
    head.bias.copy_(bias - (weight / std) @ mean)

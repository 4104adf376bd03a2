"""Deep feature reweighting: train ERM, then refit the last layer on balanced groups."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from debiasbench.common.errors import DataError, OptionError
from debiasbench.common.options import option
from debiasbench.core.method import Method
from debiasbench.core.supervision import Supervision
from debiasbench.parts.heads import set_head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from debiasbench.core.head import Head
    from debiasbench.core.lab import Lab

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class DFR(Method):
    """Deep feature reweighting: refit the last layer on group-balanced validation features.

    As in the authors' code, the strength of the penalty is chosen on features that are standardised
    by the balanced half, and the final heads are fitted on features standardised by the training
    split. Groups that are absent are left out, and ties of worst-group accuracy are broken by
    average accuracy.
    """

    citation: ClassVar[str] = (
        "Kirichenko et al. Last Layer Re-Training is Sufficient for Robustness to Spurious "
        "Correlations. ICLR 2023. arXiv:2204.02937. DFR (val)."
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "waterbirds": {
            "model": "resnet50",
            "model.pretrained": True,
            "train.lr": 0.001,
            "train.weight_decay": 0.001,
            "train.batch_size": 32,
            "train.epochs": 100,
        },
        "celeba": {
            "model": "resnet50",
            "model.pretrained": True,
            "train.lr": 0.001,
            "train.weight_decay": 0.0001,
            "train.batch_size": 128,
            "train.epochs": 50,
        },
    }
    supervision = Supervision(val="fit")

    retrains: int = option(
        20, "number of balanced subsets; the last layers fitted on them are averaged", ge=1
    )
    strengths: tuple[float, ...] = option(
        (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01),
        "candidates for C, the inverse strength of the L1 penalty; chosen by worst-group accuracy "
        "on half of the validation split",
        gt=0,
    )

    def __post_init__(self) -> None:
        """Raise `OptionError` if there is no strength to choose."""
        if not self.strengths:
            raise OptionError("method dfr: strengths=[] leaves nothing to choose: give one or more")

    def fit(self, lab: Lab) -> nn.Module:
        """Train ERM, choose C on half of the validation split, refit the head on all of it."""
        start = lab.model()
        lab.head(start)  # raises before the training if the head cannot be refitted
        y, group = lab.labels("val").numpy(), lab.labels("val", "group").numpy()
        _check_classes(y)
        base = lab.train(start, name="train", select=False)
        features = lab.features(base, "val").double().numpy()  # (N, D)
        rng, classes = np.random.default_rng(lab.seed), lab.shape.classes

        half, part = _halves(y, group, rng)
        x = _standardised(features, by=features[part])
        scores = {
            c: _score(_heads(x[part], y[part], classes, c), x[~half], y[~half], group[~half])
            for c in self.strengths
        }
        best = max(scores, key=lambda c: scores[c])

        mean, scale = _statistics(lab.features(base, "train").double().numpy())
        x = (features - mean) / scale
        everything = np.ones(len(y), dtype=bool)
        parts = [_balanced(group, everything, rng) for _ in range(self.retrains)]
        heads = [_heads(x[p], y[p], classes, best) for p in parts]
        weight = np.mean([w for w, _ in heads], axis=0)
        bias = np.mean([b for _, b in heads], axis=0)

        network = copy.deepcopy(base.objective.network)
        _set_head(lab.head(network), *map(torch.from_numpy, (weight, bias, mean, scale)))
        return network


def _check_classes(y: Ints) -> None:
    """Raise `DataError` unless half of the samples can have two classes."""
    if len(np.unique(y)) < 2 or len(y) < 4:
        raise DataError(
            "method dfr refits the last layer on the validation split, so this needs at least 4 "
            f"samples of two classes: it has {len(y)}, and the classes {np.unique(y).tolist()}. "
            "Use another method"
        )


def _halves(y: Ints, group: Ints, rng: np.random.Generator) -> tuple[NDArray[np.bool_], Ints]:
    """Return a random half of the samples, (N,) bool, and the indices of a balanced part of it.

    A half of one class cannot be fitted, so it is drawn again. Among 4 or more samples of two or
    more classes, at least every third half has two classes.
    """
    while True:
        half = rng.permutation(len(y)) < len(y) // 2
        part = _balanced(group, half, rng)
        if len(np.unique(y[part])) > 1:
            return half, part


def _balanced(group: Ints, among: NDArray[np.bool_], rng: np.random.Generator) -> Ints:
    """Return indices of equally many samples of every group in `among`, (N,) bool."""
    members = [
        rng.permutation(np.flatnonzero(among & (group == g))) for g in np.unique(group[among])
    ]
    fewest = min(len(m) for m in members)
    return np.concatenate([m[:fewest] for m in members])


def _statistics(features: Floats) -> tuple[Floats, Floats]:
    """Return (D,) means and standard deviations of (N, D) features; 1 for constant features."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    return scaler.mean_, scaler.scale_


def _standardised(features: Floats, *, by: Floats) -> Floats:
    """Return (N, D) features with the statistics of `by` (M, D) removed."""
    mean, scale = _statistics(by)
    standardised: Floats = (features - mean) / scale
    return standardised


def _heads(x: Floats, y: Ints, classes: int, strength: float) -> tuple[Floats, Floats]:
    """Return (C, D) weights and (C,) biases of one-versus-rest L1 logistic regressions."""
    from sklearn.linear_model import LogisticRegression

    weight, bias = np.zeros((classes, x.shape[1])), np.full(classes, -1e4)
    for c in np.unique(y):
        regression = LogisticRegression(l1_ratio=1, C=strength, solver="liblinear", random_state=0)
        regression.fit(x, y == c)
        weight[c], bias[c] = regression.coef_[0], regression.intercept_[0]
    return weight, bias  # a class without samples keeps a low bias, so it is never predicted


def _score(head: tuple[Floats, Floats], x: Floats, y: Ints, group: Ints) -> tuple[float, float]:
    """Return worst-group and average accuracy; the average decides if the worst groups tie."""
    weight, bias = head
    correct = (x @ weight.T + bias).argmax(1) == y
    return min(correct[group == g].mean() for g in np.unique(group)), correct.mean()


def _set_head(head: Head, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> None:
    """Replace the weights of `head` by those of a head for standardised features."""
    set_head(head, weight / scale, bias - (weight / scale) @ mean)

"""Correct-n-Contrast: bring samples of a class together that a first network tells apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.common.errors import DataError
from debiasbench.common.options import option
from debiasbench.common.space import choice
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective, ParameterGroup
from debiasbench.parts.clusters import cluster
from debiasbench.parts.contrast import anchor_contrast

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from debiasbench.core.data import Batch
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class CnC(Method):
    """Correct-n-Contrast: contrast samples that a first network tells apart by the bias.

    The first network divides the training split into slices, one for each class: by default by its
    predictions. Anchors of a slice are its correct samples, negatives its wrong ones, and positives
    the wrong samples of other slices that have the class of the anchors.
    """

    citation: ClassVar[str] = (
        "Zhang, Sohoni, Zhang, Finn, Ré. Correct-N-Contrast: A Contrastive Approach for Improving "
        "Robustness to Spurious Correlations. ICML 2022. arXiv:2203.01517."
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "waterbirds": {
            "model": "resnet50",
            "model.pretrained": True,
            "num_anchor": 17,
            "num_positive": 17,
            "num_negative": 17,
            "num_negative_easy": 17,
            "temperature": 0.1,
            "max_epoch": 5,
            "train.lr": 0.0001,
            "train.weight_decay": 0.001,
        },
        "celeba": {
            "model": "resnet50",
            "model.pretrained": True,
            "num_anchor": 64,
            "num_positive": 64,
            "num_negative": 64,
            "num_negative_easy": 64,
            "temperature": 0.05,
            "max_epoch": 15,
            "target_sample_ratio": 0.1,
            "train.lr": 1e-05,
            "train.weight_decay": 0.1,
        },
    }

    max_epoch_s: int | None = option(
        None, "epochs of the first network; none: those of the run", ge=1
    )
    max_epoch: int | None = option(
        3,
        "epochs of the contrastive stage, in which every anchor begins a set once; none: those of "
        "the run",
        ge=1,
    )
    slice_with: Literal["pred", "rep", "pred_and_rep"] = option(
        "pred",
        "slices: by prediction, by clusters of features (rep), or by these with the samples of "
        "wrong predictions added to the wrong ones",
    )
    rep_cluster_method: Literal["gmm", "kmeans"] = option(
        "gmm", "how slice_with=rep finds clusters: Gaussian mixture or k-means"
    )
    num_anchor: int = option(32, "anchors in a contrastive set", ge=1)
    num_positive: int = option(32, "positives in a contrastive set", ge=1)
    num_negative: int = option(32, "negatives in a contrastive set", ge=1)
    num_negative_easy: int = option(
        32, "negatives of the first positive in a contrastive set; 0: no contrast around it", ge=0
    )
    batch_factor: int = option(32, "contrastive sets in a step", ge=1)
    target_sample_ratio: float = option(
        1.0, "fraction of the anchors that begin a set in an epoch", gt=0, le=1
    )
    temperature: float = option(
        0.05, "temperature T of similarities", gt=0, search=choice(0.05, 0.1)
    )
    contrastive_weight: float = option(
        0.75,
        "weight of the contrast; the cross-entropy has the rest",
        ge=0,
        le=1,
        search=choice(0.5, 0.75, 0.9),
    )
    weight_decay_c: float = option(
        1.0, "weight decay of the last layer, relative to that of the other layers", ge=0
    )

    def fit(self, lab: Lab) -> Trained:
        """Train the first network, slice the training split with it, then contrast."""
        start, y = lab.model(), lab.labels("train").numpy()
        lab.head(start)  # raises before the training if the network has no features
        epochs = self.max_epoch_s or lab.training.epochs
        first = lab.train(start, epochs=epochs, name="identify", select=False)
        slices = self._slices(lab, first, y)
        lab.inferred(conflict=torch.from_numpy(np.any([s != y for s in slices], axis=0)))

        sizes = Sizes(self.num_anchor, self.num_positive, self.num_negative, self.num_negative_easy)
        sets = ContrastiveSets(y, slices, sizes, self.target_sample_ratio, self.batch_factor)
        network = lab.model()
        loss = CnCLoss(
            network,
            lab.features_of,
            sets.sizes,
            temperature=self.temperature,
            weight=self.contrastive_weight,
            classifier=ParameterGroup(
                list(lab.head(network).parameters()), weight_decay=self.weight_decay_c
            ),
        )
        epochs = self.max_epoch or lab.training.epochs
        return lab.train(loss, batches=sets, epochs=epochs, name="train")

    def _slices(self, lab: Lab, first: Trained, y: Ints) -> list[Ints]:
        """Return (N,) names of slices, which are classes; by one or both ways."""
        slices = []
        if "rep" in self.slice_with:
            features = lab.features(first, "train").double().numpy()  # (N, D)
            found = clusters(features, len(np.unique(y)), self.rep_cluster_method, lab.seed)
            slices.append(named_by_class(found, y, lab.shape.classes))
        if "pred" in self.slice_with:
            slices.append(lab.predict(first, "train").argmax(1).numpy())
        return slices


class Sizes(NamedTuple):
    """Numbers of samples in a contrastive set, in the order in which they lie in a batch."""

    anchors: int
    positives: int
    negatives: int
    easy: int


class CnCLoss(Objective):
    """Contrast in both directions and cross-entropy, for batches of contrastive sets.

    The network is in evaluation mode also in training, as in the released code: BatchNorm uses the
    statistics that the network begins with, and dropout is off. Only BatchNorm layers that were
    never trained normalise by the batch, because their statistics would switch them off.

    `features_of`: returns logits (B, C) and features (B, D) of a network for a batch. `sizes`: of
    each set. `weight`: of the contrast, in [0, 1]. `classifier`: the parameters of the last layer.
    """

    capturable: ClassVar[bool | None] = True

    def __init__(
        self,
        network: nn.Module,
        features_of: Callable[..., tuple[Tensor, Tensor]],
        sizes: Sizes,
        *,
        temperature: float,
        weight: float,
        classifier: ParameterGroup | None = None,
    ) -> None:
        super().__init__(network)
        self.features_of, self.sizes, self.temperature = features_of, sizes, temperature
        self.weight, self._classifier = weight, classifier
        self._untrained = [m for m in network.modules() if _is_untrained(m)]

    def train(self, mode: bool = True) -> Self:
        """Change the mode of this loss, and of the layers that normalise by the batch."""
        super().train(mode)
        self.network.eval()
        for norm in self._untrained:
            norm.train(mode)
        return self

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Return the parameters of the last layer, with their weight decay."""
        return [] if self._classifier is None else [self._classifier]

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean loss of the sets, which follow each other in the batch."""
        logits, features = self.features_of(self.network, batch.x)  # (B, C), (B, D)
        length = sum(self.sizes)
        sets = features.reshape(-1, length, features.shape[1])
        parts = torch.split(sets, list(self.sizes), dim=1)
        anchors, positives, negatives, easy = parts  # each (sets, size, D)
        contrast = anchor_contrast(anchors[:, 0], positives, negatives, self.temperature)
        if self.sizes.easy:
            contrast = contrast + anchor_contrast(positives[:, 0], anchors, easy, self.temperature)
        shortest = min(size for size in self.sizes if size)
        losses = F.cross_entropy(logits, batch.y, reduction="none").view(-1, length)
        kept = torch.cat(
            [part[:, :shortest] for part in torch.split(losses, list(self.sizes), dim=1)], dim=1
        )
        return self.weight * contrast.mean() + (1 - self.weight) * kept.mean()


def _is_untrained(module: nn.Module) -> bool:
    """Return whether a module is a BatchNorm layer with the statistics of its initialisation."""
    mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    if not isinstance(module, nn.modules.batchnorm._BatchNorm) or mean is None or var is None:
        return False
    return not mean.any() and bool((var == 1).all())


class ContrastiveSets:
    """Draws the batches of an epoch, which consist of whole contrastive sets.

    `y`: (N,) classes. `slices`: (N,) names of slices, which are classes; if there are two, anchors
    are those of the first, and wrong samples those of both. `sizes`: as asked for; the attribute
    `sizes` has what the rarest kind allows. `ratio`: fraction of the anchors that begin a set.
    `factor`: sets in a batch. Raises `DataError` if no sample is in the slice of its class.
    """

    def __init__(
        self, y: Ints, slices: Sequence[Ints], sizes: Sizes, ratio: float, factor: int
    ) -> None:
        self._ratio, self._factor = ratio, factor
        classes = np.unique(y).tolist()
        right = {c: np.flatnonzero((y == c) & (slices[0] == c)) for c in classes}
        self.anchors = {c: samples for c, samples in right.items() if len(samples)}
        if not self.anchors:
            raise DataError(
                "method cnc: the first network is wrong on all training samples, so there are no "
                "anchors. Train it for more epochs, with a larger max_epoch_s"
            )
        self._others = {c: np.flatnonzero(y != c) for c in classes}
        wrong = np.concatenate(
            [np.stack([np.flatnonzero(s != y), s[s != y]], axis=1) for s in slices]
        )
        wrong = np.unique(wrong, axis=0)  # (W, 2): sample, slice
        self.negatives = {c: _or(wrong[wrong[:, 1] == c, 0], self._others[c]) for c in self.anchors}
        # without a wrong sample, all samples of a class are in the slice of this class
        self.positives: Mapping[int, Ints] = {
            c: _or(wrong[y[wrong[:, 0]] == c], np.stack([right[c], y[right[c]]], axis=1))
            for c in classes
        }  # (P, 2): sample, slice
        positives = min(sizes.positives, *map(len, self.positives.values()))
        negatives = min(sizes.negatives, *map(len, self.negatives.values()))
        anchors = min(sizes.anchors, positives, negatives)
        self.sizes = Sizes(anchors, positives, negatives, sizes.easy)

    def __call__(self, epoch: int, generator: torch.Generator) -> list[Tensor]:
        """Return the batches of an epoch, each (B,) int64; slices take turns in equal numbers."""
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        sets = min(max(1, round(self._ratio * len(a))) for a in self.anchors.values())
        firsts = {c: rng.choice(a, sets, replace=False) for c, a in self.anchors.items()}
        drawn = [self._set(c, firsts[c][i], rng) for i in range(sets) for c in self.anchors]
        indices = torch.from_numpy(np.stack(drawn))  # (sets * slices, length)
        return [part.flatten() for part in torch.split(indices, self._factor)]

    def _set(self, c: int, first: int, rng: np.random.Generator) -> Ints:
        """Return a set that begins with an anchor of slice `c`, (length,)."""
        positives = _drawn(self.positives[c], self.sizes.positives, rng)  # (P, 2)
        source = int(positives[0, 1])
        # samples of the slice of the first positive that have another class
        easy = self.anchors.get(source, self._others[c]) if source != c else self._others[c]
        return np.concatenate(
            [
                [first],
                _drawn(self.anchors[c], self.sizes.anchors - 1, rng),
                positives[:, 0],
                _drawn(self.negatives[c], self.sizes.negatives, rng),
                _drawn(easy, self.sizes.easy, rng),
            ]
        )


def _or(samples: Ints, otherwise: Ints) -> Ints:
    return samples if len(samples) else otherwise


def _drawn(samples: Ints, count: int, rng: np.random.Generator) -> Ints:
    """Return `count` random samples, without replacement if there are enough."""
    return samples[rng.choice(len(samples), count, replace=count > len(samples))]


def clusters(
    features: NDArray[np.float64], count: int, method: Literal["gmm", "kmeans"], seed: int
) -> Ints:
    """Return (N,) clusters, in [0, count), of the first two principal components of (N, D)."""
    from sklearn.decomposition import PCA

    seed %= 2**32
    x = PCA(min(2, *features.shape), random_state=seed).fit_transform(features)
    return cluster(x, count, kind=method, restarts=10, seed=seed).of


def named_by_class(cluster: Ints, y: Ints, classes: int) -> Ints:
    """Return (N,) clusters renamed to classes, so that as many samples as possible agree.

    `cluster`: (N,), in [0, classes). `y`: (N,) classes.
    """
    from scipy.optimize import linear_sum_assignment

    agree = np.zeros((classes, classes))
    np.add.at(agree, (cluster, y), 1)
    _, names = linear_sum_assignment(agree, maximize=True)
    renamed: Ints = names[cluster].astype(np.int64)
    return renamed

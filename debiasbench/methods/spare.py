"""SPARE: cluster early predictions of each class, and draw small clusters more often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from debiasbench.common.options import option
from debiasbench.common.space import choice
from debiasbench.core.method import Method
from debiasbench.parts.clusters import cluster, search, silhouette

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained
    from debiasbench.parts.clusters import Floats

RESTARTS = 10  # of k-means


@dataclass(frozen=True)
class SPARE(Method):
    """SPARE: cluster predictions early in training, and draw small clusters more often."""

    citation: ClassVar[str] = (
        "Yang et al. Identifying Spurious Biases Early in Training through the Lens of Simplicity "
        "Bias. AISTATS 2024. arXiv:2305.18761."
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "waterbirds": {
            "infer_num_epochs": 1,
            "num_clusters": 4,
            "train.lr": 0.0001,
            "train.weight_decay": 0.1,
            "train.batch_size": 128,
            "train.epochs": 100,
        },
    }

    infer_num_epochs: int = option(
        1,
        "epochs of the network whose predictions are clustered; 0: an untrained one",
        ge=0,
        search=choice(1, 2, 5),
    )
    num_clusters: int | None = option(
        None, "clusters of each class; none: as many as give the largest silhouette", ge=1
    )
    max_clusters: int = option(10, "most clusters of a class, with num_clusters=none", ge=2)
    high_sampling_power: float = option(
        2.0,
        "a sample of a cluster of size n is drawn with weight 1 / n^power; this is the power in "
        "classes whose silhouette is below silhouette_threshold, in others it is 1",
        ge=0,
        search=choice(1, 2, 3),
    )
    silhouette_threshold: float = option(
        0.9, "mean silhouette from which a class counts as clearly separated", ge=-1, le=1
    )

    def fit(self, lab: Lab) -> Trained:
        """Train briefly, cluster the predictions of each class, and train from scratch."""
        y, network = lab.labels("train"), lab.model()
        first = (
            lab.train(network, epochs=self.infer_num_epochs, name="infer", select=False)
            if self.infer_num_epochs
            else network
        )
        p = lab.predict(first, "train").softmax(1)  # (N, C)
        groups, count = torch.zeros_like(y), 0
        weights = torch.zeros(len(y), dtype=torch.double)
        for c in y.bincount().nonzero()[:, 0].tolist():
            members = y == c
            clusters, score = self._clusters(p[members].numpy(), lab.seed % 2**32)
            power = self.high_sampling_power if score < self.silhouette_threshold else 1.0
            groups[members] = count + clusters
            count += int(clusters.max()) + 1
            weights[members] = cluster_weights(clusters, power)
        lab.inferred(groups=groups, scores=weights)
        return lab.train(lab.model(), weights=weights, name="train")

    def _clusters(self, p: Floats, seed: int) -> tuple[Tensor, float]:
        """Return (n,) clusters of the samples of a class, and their mean silhouette."""
        if self.num_clusters is None:
            found, score = search(
                p,
                range(2, self.max_clusters + 1),
                kind="kmeans",
                mean="samples",
                restarts=RESTARTS,
                seed=seed,
            )
        else:
            found = cluster(p, self.num_clusters, kind="kmeans", restarts=RESTARTS, seed=seed)
            score = silhouette(p, found.of, mean="samples", seed=seed)
        return torch.from_numpy(found.of), score


def cluster_weights(clusters: Tensor, power: float) -> Tensor:
    """Return (n,) sampling weights 1 / size^power of the samples of a class; their sum is 1.

    `clusters`: (n,) int64. With power 1 all clusters are drawn equally often, with power 2 a
    cluster is drawn the more often the smaller it is.
    """
    weights = clusters.bincount()[clusters].double() ** -power
    return weights / weights.sum()

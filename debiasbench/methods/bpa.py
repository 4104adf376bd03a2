"""BPA: clusters of an ERM network's features, weighted by their size and their average loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from debiasbench.common.options import option
from debiasbench.common.space import choice, log
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective
from debiasbench.parts.clusters import cluster

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from debiasbench.core.data import Batch
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


class PseudoAttributeLoss(Objective):
    """Cross-entropy in which clusters that are small and have a large loss weigh more.

    `groups`: (N,) int64, the cluster of every training sample. `exp_step`: how fast weights follow
    their clusters. `every`: steps between updates of the clusters' losses, which are also updated
    at the start of an epoch. `released`: forget the weights of earlier steps, as the released code.
    """

    capturable: ClassVar[bool | None] = True
    groups: Tensor  # (N,)
    share: Tensor  # (K,) N / n_c
    loss: Tensor  # (K,) mean of the stored losses of a cluster
    known: Tensor  # bool: whether every sample had been seen when `loss` was updated
    losses: Tensor  # (N,) cross-entropy when the sample was last seen; -1: not seen
    log_weight: Tensor  # (N,)
    epoch: Tensor  # of the last step

    def __init__(
        self,
        network: nn.Module,
        groups: Tensor,
        exp_step: float,
        every: int = 10,
        *,
        released: bool = False,
    ) -> None:
        super().__init__(network)
        self.exp_step, self.every, self.released = exp_step, every, released
        n, counts = len(groups), groups.bincount()  # (K,)
        self.register_buffer("groups", groups)
        self.register_buffer("share", n / counts.clamp(min=1))
        self.register_buffer("loss", torch.zeros(len(counts)))
        self.register_buffer("known", torch.zeros((), dtype=torch.bool))
        self.register_buffer("losses", torch.full((n,), -1.0))
        self.register_buffer("log_weight", torch.zeros(n))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))

    def forward(self, batch: Batch) -> Tensor:
        """Update the weights of the batch, then store its losses; return the weighted loss."""
        losses = F.cross_entropy(self.network(batch.x), batch.y, reduction="none")  # (B,)
        self._update_clusters(batch)
        weight = self._weights(batch.index)
        self.losses.index_copy_(0, batch.index, losses.detach().float())
        return (weight * losses).mean()

    def _update_clusters(self, batch: Batch) -> None:
        """Average the stored losses of every cluster, if this step is due."""
        due = (batch.step % self.every == 0) | (batch.epoch != self.epoch)
        seen, zeros = self.losses >= 0, torch.zeros_like(self.loss)
        total = zeros.index_add(0, self.groups, self.losses.clamp(min=0))
        count = zeros.index_add(0, self.groups, seen.float())
        self.loss.copy_(torch.where(due, total / count.clamp(min=1), self.loss))
        self.known.copy_(torch.where(due, seen.all(), self.known))
        self.epoch.copy_(batch.epoch)

    def _weights(self, index: Tensor) -> Tensor:
        """Update and return the weights (B,) of the samples at `index`, whose mean is 1."""
        own = self.groups[index]
        v = self.share[own] * torch.where(self.known, self.loss[own], 1.0)
        v = v / v.mean().clamp(min=1e-12)  # 0 if all losses are 0
        old = v.clamp(min=1e-12).log() if self.released else self.log_weight[index]
        # in logarithms, since weights grow exponentially
        new = (old + self.exp_step * v).log_softmax(0) + math.log(len(index))
        self.log_weight.index_copy_(0, index, new)
        return new.exp()


@dataclass(frozen=True)
class BPA(Method):
    """BPA: cluster the features of each class, and upweight small clusters with a large loss.

    The clusters are those of a network trained by ERM, and do not change while the second network
    is trained.
    """

    citation: ClassVar[str] = (
        "Seo, Lee, Han. Unsupervised Learning of Debiased Representations with Pseudo-Attributes. "
        "CVPR 2022. arXiv:2108.02943."
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "celeba": {
            "compat": "released",
            "model": "resnet18",
            "model.pretrained": True,
            "train.optimizer": "adam",
            "train.lr": 0.0001,
            "train.weight_decay": 0.01,
            "train.batch_size": 256,
            "train.epochs": 50,
            "train.schedule": "cosine",
        },
    }

    k: int = option(8, "clusters of each class", ge=1, search=choice(2, 4, 8, 16))
    exp_step: float = option(
        0.05, "step size of the exponential update of weights", ge=0, search=log(0.005, 0.5)
    )
    update_cluster_iter: int = option(10, "steps between updates of the clusters' losses", ge=1)
    compat: Literal["none", "released"] = option(
        "none", "released: weights do not accumulate, since the code overwrites the earlier ones"
    )

    def fit(self, lab: Lab) -> Trained:
        """Train ERM, cluster its features, then train a new network on weighted samples."""
        base = lab.train(lab.model(), name="base", select=False)
        features = lab.features(base, "train")
        groups = pseudo_attributes(features, lab.labels("train"), self.k, lab.seed)
        loss = PseudoAttributeLoss(
            lab.model(),
            groups,
            self.exp_step,
            self.update_cluster_iter,
            released=self.compat == "released",
        )
        trained = lab.train(loss, name="train")
        lab.inferred(groups=groups, scores=loss.log_weight.exp())
        return trained


def pseudo_attributes(features: Tensor, y: Tensor, k: int, seed: int) -> Tensor:
    """Return (N,) int64 clusters, from 0: at most `k` of each class, by cosine distance.

    `features`: (N, D). `y`: (N,) classes. The clusters are those of k-means on features of length
    1, between which the squared distance is twice the cosine distance.
    """
    x, found, total = F.normalize(features.float()).numpy(), torch.zeros_like(y), 0
    for c in y.bincount().nonzero()[:, 0]:  # classes with samples
        own = cluster(x[y == c], k, kind="kmeans", restarts=3, seed=seed % 2**32)
        found[y == c] = total + torch.from_numpy(own.of)
        total += len(own)
    return found

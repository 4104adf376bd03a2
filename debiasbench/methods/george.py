"""GEORGE: cluster the features of each class into subclasses, then group DRO over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch.nn import functional as F

from debiasbench.common.options import option
from debiasbench.common.space import choice, log
from debiasbench.core.method import Method
from debiasbench.core.supervision import Supervision
from debiasbench.core.weights import equal_groups
from debiasbench.parts.clusters import cluster, overclustered, search
from debiasbench.parts.groups import GroupDROLoss

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained
    from debiasbench.parts.clusters import Floats, Ints, Kind

RESTARTS = 3  # of k-means and of mixtures


@dataclass(frozen=True)
class GEORGE(Method):
    """GEORGE: cluster the features of each class, then group DRO over the clusters."""

    citation: ClassVar[str] = (
        "Sohoni et al. No Subclass Left Behind: Fine-Grained Robustness in Coarse-Grained "
        "Classification Problems. NeurIPS 2020. arXiv:2011.12945."
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "waterbirds": {
            "model": "resnet50",
            "model.pretrained": True,
            "train.lr": 1e-05,
            "train.weight_decay": 1.0,
            "train.batch_size": 128,
            "train.epochs": 300,
        },
        "celeba": {
            "adjustment": 3.0,
            "train.lr": 1e-05,
            "train.weight_decay": 0.1,
            "train.batch_size": 128,
            "train.epochs": 50,
        },
    }

    reduction: Literal["hardness", "pca", "none"] = option(
        "hardness",
        "what is clustered; hardness: the projection of features that separates the class from the "
        "others; pca: principal components; none: all features",
    )
    components: int = option(2, "principal components of reduction=pca", ge=1)
    center: bool = option(False, "subtract the mean of the training features")
    normalize: bool | None = option(
        None, "divide features by their norm; none: yes, unless reduction=hardness"
    )
    clustering: Literal["gmm", "kmeans"] = option("gmm", "gmm: a mixture of Gaussians")
    k: int | None = option(
        None, "clusters of each class; none: from 2 to max_k, by the largest silhouette", ge=1
    )
    max_k: int = option(10, "most clusters of a class, with k=none", ge=2)
    overcluster: bool = option(
        False,
        "split clusters further, and keep parts that are better separated, harder than their "
        "cluster, and large enough",
    )
    oversplit_factor: int = option(5, "parts of a cluster, with overcluster", ge=2)
    min_val: int = option(
        25,
        "validation samples that a part needs, with overcluster; validation inputs are clustered "
        "by the class that is predicted for them; 0: validation is not read",
        ge=0,
    )
    step_size: float = option(
        0.01, "step size of the group weights q", gt=0, search=log(0.001, 0.1)
    )
    adjustment: float = option(
        2.0,
        "C of the generalisation adjustment C / sqrt(n_g)",
        ge=0,
        search=choice(0, 1, 2, 3, 4, 5),
    )
    sampling: Literal["balanced", "uniform"] = option(
        "balanced", "balanced: draw all clusters equally often; uniform: as ERM"
    )

    @property
    def supervision(self) -> Supervision:
        """Validation inputs are read to decide whether a part of a cluster is large enough."""
        return Supervision(val="inputs" if self._reads_validation else "none")

    @property
    def _reads_validation(self) -> bool:
        return self.overcluster and self.min_val > 0

    def fit(self, lab: Lab) -> Trained:
        """Train ERM, cluster its features within each class, train by group DRO over clusters."""
        start = lab.model()
        if self.reduction == "hardness":
            lab.head(start)  # raises before the training if there is no linear head
        base = lab.train(start, name="erm", select=False)
        groups = self._subclasses(lab, base)  # (N,)
        lab.inferred(groups=groups)
        loss = GroupDROLoss(
            lab.model(), groups.bincount(), self.step_size, self.adjustment, by="pseudo"
        )
        return lab.train(
            loss,
            extra={"pseudo": groups},
            weights=equal_groups(groups) if self.sampling == "balanced" else None,
            name="train",
        )

    def _subclasses(self, lab: Lab, base: Trained) -> Tensor:
        """Return (N,) int64 clusters of the training samples; no class shares one with another."""
        y, features = lab.labels("train"), lab.features(base, "train").float()
        losses = F.cross_entropy(lab.predict(base, "train"), y, reduction="none")
        if self._reads_validation:
            val, val_y = lab.features(base, "val").float(), lab.predict(base, "val").argmax(1)
        else:
            val, val_y = features[:0], y[:0]
        mean = features.mean(0)
        features, val = self._scaled(features, mean), self._scaled(val, mean)
        head = None
        if self.reduction == "hardness":
            head = lab.head(base.objective.network).weight.detach().flatten(1).cpu().float()
        groups, count = torch.zeros_like(y), 0
        for c in y.bincount().nonzero()[:, 0].tolist():
            members, seed = y == c, lab.seed % 2**32
            reduce = self._reducer(features[members], head, c, seed)
            x, val_x = reduce(features[members]), reduce(val[val_y == c])
            found = self._clusters(x, losses[members].double().numpy(), val_x, seed)
            groups[members] = count + torch.from_numpy(found)
            count += int(found.max()) + 1
        return groups

    def _scaled(self, features: Tensor, mean: Tensor) -> Tensor:
        """Return (M, D) features, centred and normalised as the options say."""
        if self.center:
            features = features - mean
        unit = self.reduction != "hardness" if self.normalize is None else self.normalize
        return F.normalize(features) if unit else features

    def _reducer(
        self, features: Tensor, head: Tensor | None, c: int, seed: int
    ) -> Callable[[Tensor], Floats]:
        """Return what maps features (M, D) of class c to (M, D'), fitted on those of training."""
        if head is not None:
            direction = hardness(head, c)
            return lambda x: (x @ direction)[:, None].numpy()
        if self.reduction == "none" or len(features) < 2:
            return lambda x: x.numpy()
        from sklearn.decomposition import PCA

        pca = PCA(min(self.components, *features.shape), random_state=seed).fit(features.numpy())

        def reduce(x: Tensor) -> Floats:
            projected: Floats = (x.numpy() - pca.mean_) @ pca.components_.T
            return projected

        return reduce

    def _clusters(self, x: Floats, losses: Floats, val: Floats, seed: int) -> Ints:
        """Return (n,) clusters of the samples `x` (n, D') of a class; see `overclustered`."""
        kind: Kind = self.clustering
        if self.k is None:
            base, _ = search(
                x,
                range(2, self.max_k + 1),
                kind=kind,
                mean="clusters",
                restarts=RESTARTS,
                seed=seed,
                last_of_equal=True,
            )
        else:
            base = cluster(x, self.k, kind=kind, restarts=RESTARTS, seed=seed)
        if not self.overcluster:
            return base.of
        return overclustered(
            x,
            base,
            losses,
            val,
            kind=kind,
            factor=self.oversplit_factor,
            restarts=RESTARTS,
            min_val=self.min_val,
            seed=seed,
        )


def hardness(head: Tensor, c: int) -> Tensor:
    """Return the (D,) unit vector along which features of class c are hard, or easy.

    It is w_c minus the mean of the other rows of the `head` (C, D). For two classes it is the
    authors' w_1 - w_0, up to a sign that changes no cluster; more classes are not in their code.
    """
    others = torch.arange(len(head)) != c
    direction = head[c] - (head[others].mean(0) if others.any() else 0)
    return F.normalize(direction, dim=0)

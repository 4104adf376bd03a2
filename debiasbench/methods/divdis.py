"""DivDis: heads that fit the labels and disagree on unlabelled data; then choose one of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.common.options import option
from debiasbench.common.space import choice, log
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective
from debiasbench.core.stage import Beside
from debiasbench.core.supervision import Supervision
from debiasbench.parts.branches import linear_beside, logits_of
from debiasbench.parts.heads import set_head

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from debiasbench.core.data import Batch
    from debiasbench.core.inputs import Inputs
    from debiasbench.core.lab import Lab

TINY = 1e-12  # below this, probabilities are treated as constant


def mutual_information(p: Tensor) -> Tensor:
    """Return the mean mutual information between the predictions of two heads, a scalar.

    `p`: (B, H, C) probabilities of H >= 2 heads for the same samples.
    """
    heads = p.shape[1]
    marginal = p.mean(0)  # (H, C)
    # the information is a small difference of logarithms, for which bf16 has too few digits
    with torch.autocast(p.device.type, enabled=False):
        joint = torch.einsum("bhd,bge->hgde", p, p) / len(p)
        product = torch.einsum("hd,ge->hgde", marginal, marginal)
    # clamped, since 0 * log 0 is NaN for probabilities that are saturated
    logarithm = joint.clamp(min=TINY).log() - product.clamp(min=TINY).log()
    information = (joint * logarithm).sum((2, 3))  # (H, H)
    return information.triu(diagonal=1).sum() / (heads * (heads - 1) / 2)


def divergence(target: Tensor, source: Tensor) -> Tensor:
    """Return the mean over heads of KL(mean prediction on target || mean prediction on source).

    `target`, `source`: (B, H, C) probabilities; the mean of the source is over heads, too, and has
    no gradient.
    """
    p, q = target.mean(0), source.detach().mean((0, 1))  # (H, C), (C,)
    return (p * (p.clamp(min=TINY).log() - q.clamp(min=TINY).log())).sum(1).mean()


def disagreement(p: Tensor) -> Tensor:
    """Return (N,) sums of L1 distances over all pairs of heads, of probabilities `p` (N, H, C)."""
    return torch.cdist(p, p, p=1).sum((1, 2))


class DivDisLoss(Objective):
    """Cross-entropy of all heads, and diversity and balance of their predictions on `beside`.

    The network's own head is the first, and predicts. `others`: (H - 1) * C outputs on the same
    features. `features_of`: returns the logits and the features of the network.
    """

    capturable: ClassVar[bool | None] = True

    def __init__(
        self,
        network: nn.Module,
        others: nn.Linear,
        features_of: Callable[[nn.Module, Inputs], tuple[Tensor, Tensor]],
        diversity_weight: float,
        reg_weight: float,
    ) -> None:
        super().__init__(network)
        self.others, self.features_of = others, features_of
        self.diversity_weight, self.reg_weight = diversity_weight, reg_weight

    def logits(self, x: Inputs) -> Tensor:
        """Return (B, H, C) logits of all heads."""
        first, features = self.features_of(self.network, x)
        others = self.others(features).view(len(first), -1, first.shape[1])
        return torch.cat([first[:, None], others], 1).float()

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss; source and target are two passes, as with `bn_mode=train`."""
        source, target = self.logits(batch.x), self.logits(batch.beside.x).softmax(2)
        y = batch.y[:, None].expand(-1, source.shape[1])  # (B, H)
        loss = F.cross_entropy(source.flatten(0, 1), y.flatten())
        loss = loss + self.diversity_weight * mutual_information(target)
        return loss + self.reg_weight * divergence(target, source.softmax(2))


@dataclass(frozen=True)
class DivDis(Method):
    """DivDis: train heads that disagree on unlabelled validation inputs, then choose one."""

    citation: ClassVar[str] = (
        "Lee et al. Diversify and Disambiguate: Learning From Underspecified Data. ICLR 2023. "
        "arXiv:2202.03418."
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "waterbirds": {
            "dataset.augment": False,
            "model": "resnet50",
            "model.pretrained": True,
            "train.lr": 0.001,
            "train.weight_decay": 0.0001,
            "train.batch_size": 16,
            "train.epochs": 100,
        },
    }

    heads: int = option(4, "linear heads on one body", ge=2, search=choice(2, 4, 8))
    diversity_weight: float = option(
        10.0,
        "weight of the mutual information between the predictions of two heads",
        ge=0,
        search=log(0.1, 100),
    )
    reg_weight: float = option(
        10.0,
        "weight of the divergence of the mean predictions from those in training",
        ge=0,
        search=log(0.1, 100),
    )
    select: Literal["train", "active", "random"] = option(
        "train",
        "how the head is chosen; train: by the cross-entropy on the training split; active: by the "
        "accuracy on the `queries` validation samples on which the heads disagree most; random: on "
        "`queries` random validation samples. The last two read these samples' class labels",
    )
    queries: int = option(
        16, "labelled validation samples that select=active or random reads", ge=1
    )

    @property
    def supervision(self) -> Supervision:
        """Validation inputs, and their labels if `select` reads some."""
        return Supervision(val="inputs" if self.select == "train" else "select")

    def fit(self, lab: Lab) -> nn.Module:
        """Diversify: train all heads. Disambiguate: return the network with one of them."""
        network = lab.model()
        others = linear_beside(
            lab.head(network), (self.heads - 1) * lab.shape.classes, lab.generator("heads")
        )
        start = DivDisLoss(network, others, lab.features_of, self.diversity_weight, self.reg_weight)
        stage = lab.train(start, beside=Beside(data="val"), name="diversify", select=False)
        loss = cast("DivDisLoss", stage.objective)
        chosen = self.choose(lab, loss)

        network = copy.deepcopy(loss.network)
        if chosen > 0:
            weight, bias = (p.chunk(self.heads - 1) for p in (loss.others.weight, loss.others.bias))
            set_head(lab.head(network), weight[chosen - 1], bias[chosen - 1])
        return network

    def choose(self, lab: Lab, loss: DivDisLoss) -> int:
        """Return the index of the best head; the first of equals."""
        split = "train" if self.select == "train" else "val"
        features = lab.features(loss, split)  # (N, D)
        logits = torch.cat(
            [logits_of(layer, features) for layer in (lab.head(loss.network), loss.others)], 1
        ).view(len(features), self.heads, -1)  # (N, H, C)
        y = lab.labels(split)
        if self.select == "train":
            each = y[:, None].expand(-1, self.heads)
            losses = F.cross_entropy(logits.transpose(1, 2), each, reduction="none").mean(0)
            return int(losses.argmin())
        if self.select == "active":
            order = disagreement(logits.softmax(2)).argsort(descending=True, stable=True)
        else:
            order = torch.randperm(len(y), generator=lab.generator("queries"))
        asked = order[: self.queries]
        return int((logits[asked].argmax(2) == y[asked, None]).double().mean(0).argmax())

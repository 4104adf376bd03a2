"""LISA: mix pairs of samples that share the class or the bias value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from torch import Tensor
from torch.distributions import Beta
from torch.nn import functional as F

from debiasbench.common.errors import OptionError
from debiasbench.common.options import option
from debiasbench.common.space import log, uniform
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective
from debiasbench.core.supervision import Supervision
from debiasbench.parts.mixing import check_mixable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from debiasbench.core.data import Batch
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


class LISALoss(Objective):
    """Cross-entropy of mixed pairs: sample i of the first half of a batch and of the second."""

    capturable: ClassVar[bool | None] = True
    alpha: Tensor  # a scalar

    def __init__(self, network: nn.Module, alpha: float, *, cut_mix: bool = False) -> None:
        super().__init__(network)
        self.cut_mix = cut_mix
        self.register_buffer("alpha", torch.tensor(alpha))

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss with random factors, drawn from torch's generator."""
        beta = Beta(self.alpha, self.alpha, validate_args=False)
        if self.cut_mix:
            *_, height, width = cast("Tensor", batch.x).shape
            return self.cut(batch, random_box(height, width, beta.sample()))
        return self.mixed(batch, beta.sample(torch.Size([len(batch) // 2])))

    def mixed(self, batch: Batch, factor: Tensor) -> Tensor:
        """Return the loss for the factor (B / 2,) of the first sample of each pair."""
        (x1, x2), (y1, y2) = cast("Tensor", batch.x).chunk(2), batch.y.chunk(2)
        x = torch.lerp(x2, x1, factor.view(-1, *[1] * (x1.dim() - 1)).to(x1))
        z = self.network(x)  # (B / 2, C)
        return _mean_of_both(z, y1, y2, factor)

    def cut(self, batch: Batch, box: Tensor) -> Tensor:
        """Return the loss after the pixels of a box (H, W) bool are exchanged within each pair."""
        x, y = cast("Tensor", batch.x), batch.y
        partner_x, partner_y = (torch.cat(v.chunk(2)[::-1]) for v in (x, y))
        z = self.network(torch.where(box, partner_x, x))  # (B, C): both samples of each pair
        return _mean_of_both(z, y, partner_y, 1 - box.float().mean())


def _mean_of_both(z: Tensor, y1: Tensor, y2: Tensor, factor: Tensor) -> Tensor:
    """Return the mean cross-entropy with labels factor * y1 + (1 - factor) * y2."""
    first, second = (F.cross_entropy(z, y, reduction="none") for y in (y1, y2))
    return (factor * first + (1 - factor) * second).mean()


def random_box(height: int, width: int, factor: Tensor) -> Tensor:
    """Return (H, W) bool: a box around a random pixel, cut off at the borders.

    `factor`: in [0, 1]; the sides of the box are sqrt(1 - factor) of those of the image.
    """
    inside = []
    for size in (height, width):
        reach = ((1 - factor).sqrt() * size).floor().div(2).floor()
        centre = (torch.rand_like(factor) * size).floor()
        position = torch.arange(size, device=factor.device)
        inside.append((position >= centre - reach) & (position < centre + reach))
    return inside[0][:, None] & inside[1]


class PairedBatches:
    """Batches whose first half is to be mixed with the second half, sample by sample.

    `group`: (N,) = y * num_biases + bias. A step pairs whole groups: with probability `mix_ratio`
    groups of one class and different bias values, otherwise groups of one bias value and different
    classes. Among the groups of a class (bias value) the partners are random, and if their number
    is odd, one has none in this step. Groups without samples are ignored. A step has as many
    samples of each pair, at most `batch_size` in all and at least one pair of samples. `steps`: of
    an epoch.
    """

    def __init__(
        self, group: Tensor, num_biases: int, batch_size: int, mix_ratio: float, steps: int
    ) -> None:
        self.mix_ratio, self.steps = mix_ratio, steps
        self.mixed = max(1, batch_size // 2)  # pairs of samples of a step
        present = group.bincount().nonzero()[:, 0]  # (G,)
        self.members = {g: (group == g).nonzero()[:, 0] for g in present.tolist()}
        within, across = (
            _sharing(present, by) for by in (present // num_biases, present % num_biases)
        )
        # without two groups that share something, mix within groups, as the released code does
        alone = [[g, g] for g in self.members]
        self.kinds = within or across or alone, across or within or alone

    def __call__(self, epoch: int, rng: torch.Generator) -> list[Tensor]:
        """Return the batches of an epoch, each (2n,) int64 indices."""
        within = torch.rand(self.steps, generator=rng) < self.mix_ratio
        group = torch.empty(self.steps, 2 * self.mixed, dtype=torch.long)
        for sharing, chosen in zip(self.kinds, (within, ~within), strict=True):
            group[chosen] = _matched(sharing, int(chosen.sum()), self.mixed, rng)
        places = group.flatten().argsort(stable=True)  # of the first group, of the second, ...
        counts = group.flatten().bincount().tolist()
        drawn = [_passes(self.members[g], n, rng) for g, n in enumerate(counts) if n > 0]
        index = torch.empty_like(places).scatter_(0, places, torch.cat(drawn))
        return list(index.view_as(group))


def _sharing(groups: Tensor, by: Tensor) -> list[list[int]]:
    """Return the lists of two or more groups with equal values of `by`; both are (G,)."""
    counts = by.bincount().tolist()
    return [groups[by == value].tolist() for value, n in enumerate(counts) if n > 1]


def _matched(sharing: list[list[int]], steps: int, mixed: int, rng: torch.Generator) -> Tensor:
    """Return (steps, 2 * mixed) groups: column i and column mixed + i are partners in a step."""
    groups = torch.tensor([g for one in sharing for g in one])
    block = torch.tensor([i for i, one in enumerate(sharing) for _ in one])
    rank = torch.cat([torch.arange(len(one)) for one in sharing])
    has_next = block[:-1] == block[1:]
    left = ((rank[:-1] % 2 == 0) & has_next).nonzero()[:, 0]  # (P,) of neighbours that are a pair
    # random order within each block, then neighbours are partners
    order = (block + torch.rand(steps, len(groups), generator=rng, dtype=torch.double)).argsort(1)
    # random order of the pairs, since the first ones may have one sample more than the others
    pairs = left[torch.rand(steps, len(left), generator=rng).argsort(1)[:, :mixed]]
    n = pairs.shape[1]
    sizes = mixed // n + (torch.arange(n) < mixed % n).long()
    halves = [order.gather(1, pairs + side).repeat_interleave(sizes, 1) for side in (0, 1)]
    return groups[torch.cat(halves, 1)]


def _passes(members: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Return (count,) samples of a group from as many shuffled passes as that takes."""
    passes = -(-count // len(members))
    order = torch.rand(passes, len(members), generator=rng).argsort(1)
    return members[order.flatten()[:count]]


@dataclass(frozen=True)
class LISA(Method):
    """LISA: mix samples of one class and different bias values, or the reverse."""

    citation: ClassVar[str] = (
        "Yao et al. Improving Out-of-Distribution Robustness via Selective Augmentation. ICML "
        "2022. arXiv:2201.00299."
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "waterbirds": {
            "dataset.augment": False,
            "model": "resnet50",
            "model.pretrained": True,
            "epoch": "smallest",
            "train.lr": 0.001,
            "train.weight_decay": 0.0001,
            "train.batch_size": 64,
            "train.epochs": 300,
        },
        "celeba": {
            "dataset.augment": False,
            "model": "resnet50",
            "model.pretrained": True,
            "cut_mix": True,
            "mix_alpha": 0.2,
            "epoch": "smallest",
            "train.lr": 0.0001,
            "train.weight_decay": 0.0001,
            "train.batch_size": 64,
            "train.epochs": 50,
        },
    }
    supervision = Supervision(train="groups")

    mix_alpha: float = option(
        2.0,
        "the factor of a pair is drawn from Beta(mix_alpha, mix_alpha)",
        gt=0,
        search=log(0.1, 10),
    )
    mix_ratio: float = option(
        0.5,
        "fraction of steps that mix within classes; the others mix within bias values",
        ge=0,
        le=1,
        search=uniform(0, 1),
    )
    cut_mix: bool = option(
        False, "exchange a box of two images instead of mixing them, as the authors do on CelebA"
    )
    epoch: Literal["split", "smallest"] = option(
        "split",
        "steps of an epoch; split: until as many samples are read as the training split has; "
        "smallest: until the smallest group has been read once, as in the released code",
    )

    def fit(self, lab: Lab) -> Trained:
        """Train once on mixed pairs; raises `OptionError` for inputs that cannot be mixed."""
        check_mixable(lab.shape, "lisa")
        if self.cut_mix and len(lab.shape.input) != 3:
            raise OptionError(
                f"method lisa: cut_mix needs images (C, H, W), not samples of shape "
                f"{lab.shape.input}. Remove cut_mix"
            )
        group = lab.labels(label="group")  # (N,)
        sizes = group.bincount()
        sizes, size = sizes[sizes > 0], lab.training.batch_size
        each = max(1, size // len(sizes))  # samples of a group in a step
        steps = -(-len(group) // size) if self.epoch == "split" else -(-int(sizes.min()) // each)
        return lab.train(
            LISALoss(lab.model(), self.mix_alpha, cut_mix=self.cut_mix),
            batches=PairedBatches(group, lab.num_biases, size, self.mix_ratio, steps),
            name="train",
        )

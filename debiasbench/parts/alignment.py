"""Distances between the features of groups of samples, which invariant features make small."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn import functional as F

from debiasbench.core.objective import Objective

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from debiasbench.core.data import Batch
    from debiasbench.core.inputs import Inputs

    FeaturesOf = Callable[[nn.Module, Inputs], tuple[Tensor, Tensor]]
    Distance = Callable[[Tensor, Tensor, int], Tensor]

SCALES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)  # of the kernels of MMD in DomainBed


class AlignedFeatures(Objective):
    """Mean cross-entropy + gamma * distance of the features of the bias attribute's values.

    `features_of`: that of the lab. `distance`: such as `coral`; called with features (B, D), the
    attribute (B,) and the number of its values.
    """

    capturable: ClassVar[bool | None] = True

    def __init__(
        self,
        network: nn.Module,
        features_of: FeaturesOf,
        distance: Distance,
        values: int,
        gamma: float,
    ) -> None:
        super().__init__(network)
        self.features_of, self.distance = features_of, distance
        self.values, self.gamma = values, gamma

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        logits, features = self.features_of(self.network, batch.x)
        # sums of squares that nearly cancel need the precision of fp32
        with torch.autocast(features.device.type, enabled=False):
            distance = self.distance(features.float(), batch.bias, self.values)
        return F.cross_entropy(logits, batch.y) + self.gamma * distance


def coral(features: Tensor, group: Tensor, groups: int) -> Tensor:
    """Return the mean squared difference of means and of covariances, over pairs of groups.

    `features`: (B, D). `group`: (B,) int64 in [0, groups). Covariances are divided by n - 1, so a
    group with fewer than two samples in the batch is left out. 0 if fewer than two are left.

    Sun, Saenko. Deep CORAL. ECCV 2016 workshops; with means as in DomainBed.
    """
    count = sizes(group, groups)  # (G,)
    used = (count > 1).float()
    x = features - features.mean(0)  # no distance depends on the origin
    mean = x.new_zeros(groups, x.shape[1]).index_add(0, group, x) / count.clamp(min=1)[:, None]
    centred = x - mean[group]
    means = mean_distance(x @ x.T, (used / count.clamp(min=1))[group], group, used.sum())
    # the inner product of two covariances is a sum of squared inner products of their samples
    covariances = mean_distance(
        (centred @ centred.T) ** 2, (used / (count - 1).clamp(min=1))[group], group, used.sum()
    )
    return means / x.shape[1] + covariances / x.shape[1] ** 2


def mmd(features: Tensor, group: Tensor, groups: int) -> Tensor:
    """Return the squared maximum mean discrepancy, a mean over pairs of groups in the batch.

    `features`: (B, D). `group`: (B,) int64 in [0, groups). The kernel is the sum of
    exp(-s |x - y|^2) over `SCALES`. 0 if there are fewer than two groups in the batch.

    Li et al. Domain Generalization with Adversarial Feature Learning. CVPR 2018; the kernel is
    that of DomainBed.
    """
    count = sizes(group, groups)  # (G,)
    distance = torch.cdist(
        features, features, compute_mode="donot_use_mm_for_euclid_dist"
    ).square()  # (B, B)
    kernel = torch.stack([(-s * distance).exp() for s in SCALES]).sum(0)
    return mean_distance(kernel, 1 / count[group], group, (count > 0).sum())


def sizes(group: Tensor, groups: int) -> Tensor:
    """Return (groups,) float numbers of samples; `group`: (B,) int64 in [0, groups)."""
    ones = torch.ones(len(group), device=group.device)
    return torch.zeros(groups, device=group.device).index_add(0, group, ones)


def mean_distance(kernel: Tensor, weight: Tensor, group: Tensor, groups: Tensor) -> Tensor:
    """Return the mean of |m_g - m_h|^2 over all pairs of groups.

    m_g is the sum of weight * phi(x) over the samples of the group, and `kernel` (B, B) the inner
    products of phi. `weight`: (B,), 0 for samples of groups that are left out. `groups`: how many
    are not left out, a scalar.

    The sum over pairs is n * sum |m_g|^2 - |sum m_g|^2, so one sum over the kernel is enough.
    """
    same = group == group[:, None]  # (B, B)
    signed = torch.where(same, groups - 1, -1)
    total = (weight * weight[:, None] * signed * kernel).sum()
    return 2 * total / (groups * (groups - 1)).clamp(min=1)

"""Contrast of features by cosine similarity: around one anchor, and within a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def anchor_contrast(
    anchor: Tensor, positives: Tensor, negatives: Tensor, temperature: float
) -> Tensor:
    """Return (...,) supervised contrast of anchors with their positives and negatives, >= 0.

    `anchor`: (..., D) features. `positives`: (..., M, D), `negatives`: (..., N, D) features, M and
    N >= 1. `temperature`: T > 0. With s = cosine similarity / T, it is the mean over positives of
    -s(anchor, positive) + log(sum of exp s(anchor, other) over all positives and negatives).

    Zhang, Sohoni, Zhang, Finn, Ré. Correct-N-Contrast. ICML 2022.
    """
    others = torch.cat([positives, negatives], dim=-2).float()  # (..., M + N, D)
    cosine = F.cosine_similarity(anchor.float().unsqueeze(-2), others, dim=-1)
    similar = cosine / temperature  # (..., M + N)
    return similar.logsumexp(-1) - similar[..., : positives.shape[-2]].mean(-1)


def batch_contrast(features: Tensor, y: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrast of a batch, a scalar, whose positives are restricted.

    `features`: (B, D). `y`: (B,) int64 classes. `positive`: (B,) bool, samples that may be the
    positives of others of their class. `temperature`: T > 0. With s = cosine similarity / T, it is
    the mean over the samples i that have positives, and over these j, of
    -s_ij + log(sum of exp s_ik over all k except i). It is 0 if no sample has a positive.

    Park, Lee, Lee, Ye. Training Debiased Subnetworks with Contrastive Weight Pruning. CVPR 2023.
    """
    unit = F.normalize(features.float(), dim=1)
    # a small temperature enlarges the rounding errors of products in bf16
    with torch.autocast(features.device.type, enabled=False):
        similar = unit @ unit.T / temperature  # (B, B)
    own = torch.eye(len(y), dtype=torch.bool, device=y.device)
    # a finite value, so that a batch of one sample has no NaN
    others = similar.masked_fill(own, -1e9).logsumexp(1, keepdim=True)  # (B, 1)
    pairs = ((y[:, None] == y) & positive & ~own).float()  # (B, B)
    count = pairs.sum(1)  # (B,)
    losses = (pairs * (others - similar)).sum(1) / count.clamp(min=1)  # (B,)
    return losses.sum() / (count > 0).sum().clamp(min=1)

"""Weights of groups or classes by their sizes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor

Scheme = Literal["inverse", "sqrt", "effective"]


def group_weights(counts: Tensor, scheme: Scheme, beta: float = 0.9999) -> Tensor:
    """Return (G,) weights of groups with `counts` samples; their mean over groups is 1.

    "inverse": 1 / n. "sqrt": 1 / sqrt(n). "effective": (1 - beta) / (1 - beta^n), the inverse of
    the effective number of samples (Cui et al., 2019, eq. 2). Groups without samples have weight 0
    and do not count in the mean.
    """
    present, n = counts > 0, counts.double()
    if scheme == "effective":
        # the numerator is left out, since the weights are divided by their mean
        raw = -1 / torch.expm1(n * math.log(beta))
    else:
        raw = 1 / (n.sqrt() if scheme == "sqrt" else n)
    raw = torch.where(present, raw, 0.0)
    return raw / raw.sum() * present.sum()

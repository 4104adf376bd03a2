"""Images for the tests of the corruptions."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from debiasbench.datasets._corruptions import corrupt
from debiasbench.datasets._corruptions.draws import Draws

SEVERITIES = range(1, 6)


def pictures(n: int = 24) -> Tensor:
    """(N, 3, 32, 32) smooth shapes with some grain, dark to light."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(n, 3, 32, 32)), (0, 0.7, 4, 4))
    x = 128 + 500 * smooth + rng.normal(size=(n, 3, 32, 32)) * 8
    return torch.from_numpy(x.clip(0, 255).astype(np.uint8))


def flat(level: int, n: int = 24) -> Tensor:
    return torch.full((n, 3, 32, 32), level, dtype=torch.uint8)


def changed(name: str, x: Tensor, severity: int) -> Tensor:
    return corrupt(name, x, severity, torch.arange(len(x))).float()


def draws(n: int) -> Draws:
    return Draws.of(0, "test", torch.arange(n))

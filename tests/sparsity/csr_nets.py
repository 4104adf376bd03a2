"""Small networks to convert to CSR, and random masks for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from debiasbench.sparsity.csr import CsrReport, to_csr
from debiasbench.sparsity.params import maskable
from tests.sparsity.random_tensors import Tensors, bernoulli, random


def always(dense_ms: float, csr_ms: float) -> bool:
    return True


def built(build: Callable[[], nn.Module], dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().to(dtype)


@torch.no_grad()
def masked(model: nn.Module, density: float, seed: int = 0) -> Tensors:
    """Mask every weight of the model at random."""
    masks: Tensors = {}
    for i, (name, p) in enumerate(maskable(model).items()):
        masks[name] = bernoulli(density, *p.shape, seed=seed + i)
        p.mul_(masks[name])
    return masks


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(27, 40), nn.ReLU(), nn.Linear(40, 30, bias=False), nn.ReLU(), nn.Linear(30, 3)
    )


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=(2, 1), dilation=2, bias=False),
        nn.ReLU(),
        nn.Conv2d(12, 8, (3, 5), padding="same", dilation=(1, 2)),
        nn.ReLU(),
        nn.Conv2d(8, 8, (1, 3), stride=(1, 2), padding="valid"),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(80, 4),
    )


def convert(density: float = 0.1, seed: int = 0) -> tuple[CsrReport, nn.Module, Tensor]:
    """Return an MLP in CSR that has run once, the dense MLP, and an input."""
    model = built(mlp).eval()
    x = random(7, 27, dtype=torch.float64)
    report = to_csr(model, masked(model, density, seed), x, repeats=1, choose=always)
    report.model(x)
    return report, model, x

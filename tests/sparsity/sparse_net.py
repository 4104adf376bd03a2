"""A small network, its batches and a training loop, shared by tests of sparse training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.sparsity import SparseTraining, Updater, maskable

STEPS = 40


def small_net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 36, 20),
            nn.ReLU(),
            nn.Linear(20, 5),
        )


def batch(step: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(step)
    return torch.rand(16, 4, 6, 6, generator=rng), torch.randint(5, (16,), generator=rng)


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1),
    "sgd foreach": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True, foreach=True),
    "sgd fused": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
}


def train(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: range = range(STEPS),
    after: Any = lambda: None,
) -> None:
    for step in steps:
        x, y = batch(step)
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        after()


def begin(
    updater: Updater, optimizer: str = "sgd", seed: int = 0, **more: Any
) -> tuple[nn.Module, torch.optim.Optimizer, SparseTraining]:
    net = small_net()
    opt: torch.optim.Optimizer = OPTIMIZERS[optimizer](net.parameters())
    sparse = updater.attach(net, opt, total_steps=STEPS, steps_per_epoch=10, seed=seed, **more)
    return net, opt, sparse


def nothing_off_the_mask(
    net: nn.Module, opt: torch.optim.Optimizer, sparse: SparseTraining, state: bool
) -> None:
    for name, p in maskable(net).items():
        off = ~sparse.masks[name]
        values = [p.detach()]
        if state:
            values += [p.grad] if p.grad is not None else []
            values += [s for s in opt.state[p].values() if s.shape == p.shape]
        for value in values:
            assert not value[off].any()


KEPT = round(0.1 * (8 * 36 + 20 * 288 + 100))

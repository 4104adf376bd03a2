"""Presets agree with an independent implementation of their papers and released code."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.sparsity import PRESETS
from debiasbench.sparsity.topology import keyed_generator

STEPS, EVERY, SEED = 60, 7, 3
Array = NDArray[np.float64]


def batch(step: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(step)
    return (
        torch.randn(32, 12, generator=rng, dtype=torch.double),
        torch.randint(3, (32,), generator=rng),
    )


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(12, 16, bias=False), nn.Tanh(), nn.Linear(16, 3, bias=False)
        ).double()


def gradients(weights: dict[str, Array], step: int) -> dict[str, Array]:
    x, y = batch(step)
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in weights.items()}
    loss = F.cross_entropy(torch.tanh(x @ leaves["0.weight"].T) @ leaves["2.weight"].T, y)
    grads = torch.autograd.grad(loss, list(leaves.values()))
    return {name: g.numpy() for name, g in zip(leaves, grads, strict=True)}


# settings from the papers and the released code; see `restated`
RULES = {
    # Evci et al., 2020, algorithm 1: floor, cosine from 0.3 to 0, until 3/4, instead of a step
    "rigl": (0.3, 0.0, "cosine", 0.75, math.floor, "gradient", "reset", True),
    # Mocanu et al., 2018: a constant part, random growth, until the end
    "set": (0.3, 0.3, "cosine", 1.0, math.floor, "random", "mask", False),
    # Liu et al., 2021: ceil, cosine from 0.5 to 0.005, random growth, until the end
    "itop": (0.5, 0.005, "cosine", 1.0, math.ceil, "random", "mask", False),
    "rest": (0.5, 0.005, "cosine", 1.0, math.ceil, "gradient", "mask", False),
    # sparselearning/core.py: momentum of inactive weights is dense and never reset
    "rest_released": (0.5, 0.005, "cosine", 1.0, math.ceil, "gradient", "dense", False),
}


def restated(
    name: str, weights: dict[str, Array], masks: dict[str, NDArray[np.bool_]]
) -> tuple[dict[str, Array], dict[str, NDArray[np.bool_]]]:
    """SGD (lr 0.1, momentum 0.9) under one preset, by sorting, with plain loops."""
    first, last, _, stop, rounded, grow, state, replaces = RULES[name]
    velocity = {n: np.zeros_like(w) for n, w in weights.items()}
    for step in range(STEPS):
        dense = gradients(weights, step)
        due = (step + 1) % EVERY == 0 and step + 1 < stop * STEPS
        if not (due and replaces):
            for n, w in weights.items():
                g = dense[n] if state == "dense" else dense[n] * masks[n]
                velocity[n] = g if step == 0 else 0.9 * velocity[n] + g
                np.subtract(w, 0.1 * velocity[n], out=w)
                np.multiply(w, masks[n], out=w)
        if not due:
            continue
        progress = (step + 1) / (stop * STEPS)
        fraction = last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
        for n, w in weights.items():
            old, size = masks[n].ravel().copy(), np.abs(w).ravel()
            k = min(rounded(fraction * old.sum()), int(old.sum()) - 1)
            by_size = sorted(np.flatnonzero(old), key=lambda i: size[i])
            kept = set(by_size[k:])
            if grow == "random":
                score = (
                    torch.rand(w.shape, generator=keyed_generator(SEED, step, n)).numpy().ravel()
                )
            else:
                score = np.abs(dense[n]).ravel()
            free = sorted((i for i in range(w.size) if i not in kept), key=lambda i: -score[i])
            new = np.zeros(w.size, dtype=bool)
            new[[*kept, *free[:k]]] = True
            new, old = new.reshape(w.shape), old.reshape(w.shape)
            w[new & ~old] = 0
            np.multiply(w, new, out=w)
            if state == "mask":
                velocity[n] *= new & old
            if state == "reset":
                velocity[n] *= ~(new & ~old)
            masks[n] = new
    return weights, masks


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_is_what_its_source_says(name: str) -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    updater = replace(PRESETS[name](0.3), every=str(EVERY))
    sparse = updater.attach(net, optimizer, total_steps=STEPS, seed=SEED)
    weights = {n: p.detach().numpy().copy() for n, p in net.named_parameters()}
    masks = {n: mask.numpy().copy() for n, mask in sparse.masks.items()}
    start = {n: mask.copy() for n, mask in masks.items()}
    for step in range(STEPS):
        x, y = batch(step)
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    weights, masks = restated(name, weights, masks)
    assert any((masks[n] != start[n]).any() for n in masks)
    for n, p in net.named_parameters():
        assert (sparse.masks[n].numpy() == masks[n]).all()
        np.testing.assert_allclose(p.detach().numpy(), weights[n], rtol=1e-9, atol=1e-12)


def test_presets_have_the_published_intervals() -> None:
    every = {name: preset(0.1).every for name, preset in PRESETS.items()}
    assert every == {
        "rigl": "100",
        "set": "1 epoch",
        "itop": "1500",
        "rest": "1000",
        "rest_released": "1000",
    }

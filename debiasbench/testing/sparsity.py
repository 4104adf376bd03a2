"""Check a sparse training algorithm, and how weights are distributed over layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from debiasbench.common.randomness import seeded
from debiasbench.sparsity import NotAttached, SparsityTooHigh, allocate
from debiasbench.sparsity.masks import digest

if TYPE_CHECKING:
    from torch import Tensor

    from debiasbench.sparsity import SparseTraining, Updater
    from debiasbench.sparsity.distributions import Distribution


def check_updater(updater: Updater) -> None:
    """Check a sparse training algorithm by training a small network with it for 40 steps.

    Masks must fit the weights, and masked weights must stay 0. The final density must be the
    requested one. Nothing may depend on global generators. Training that resumes from a saved
    state, with new objects, must continue bit for bit.
    """
    first = _sparse_run(updater, global_seed=0)
    masks = first.masks.values()
    active = sum(int(mask.sum()) for mask in masks)
    requested = round(updater.density * sum(mask.numel() for mask in masks))
    assert first.settled, "The requested density is not reached within the training"
    if updater.pattern == "unstructured":
        has_density = active == requested
    else:
        has_density = active <= max(requested, sum(len(mask) for mask in masks))
    assert has_density, f"{active} weights are active at the end, {requested} were requested"
    again = _sparse_run(updater, global_seed=1)
    resumed = _sparse_run(updater, global_seed=2, restart_at=18)
    for other, message in (
        (again, "Masks depend on global generators: draw from layer.random()"),
        (resumed, "Resuming from a saved state gives other masks: keep no state in the updater"),
    ):
        assert digest(other.masks) == digest(first.masks), message


def check_distribution(distribution: Distribution) -> None:
    """Check that a distribution covers every layer, and that budgets add up to the density."""
    networks = (
        {"a": (64, 3, 4, 4), "b": (128, 64, 4, 4), "c": (256, 128, 4, 4), "d": (10, 256)},
        {"only": (10, 20)},
        {"wide": (1000, 2), "narrow": (2, 1000), "cube": (8, 8, 3, 3, 3)},
    )
    for shapes in networks:
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        for density in (0.01, 0.1, 0.5, 0.9, 1.0):
            wish = distribution(shapes, density).wish
            assert set(wish) == set(shapes), (
                f"The distribution has values for the layers {', '.join(sorted(wish))}, must have "
                f"them for {', '.join(sorted(shapes))}"
            )
            bad = [name for name, value in wish.items() if not 0 < value < math.inf]
            assert not bad, (
                f"The distribution has {wish[bad[0]]} for layer {bad[0]}, must be positive and "
                "finite"
            )
            try:
                budgets = allocate(shapes, density, distribution)
            except SparsityTooHigh:
                continue
            assert sum(budgets.values()) == round(density * sum(sizes.values()))
    full = allocate(networks[0], 1.0, distribution)
    assert full == {name: math.prod(shape) for name, shape in networks[0].items()}


def _sparse_run(
    updater: Updater, *, global_seed: int, restart_at: int | None = None
) -> SparseTraining:
    """Train a small network with an updater for 40 steps; return the sparse training."""

    def begin() -> tuple[nn.Module, torch.optim.Optimizer, SparseTraining]:
        with seeded(0):
            network = nn.Sequential(
                nn.Conv2d(4, 8, 3),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(8 * 16, 20),
                nn.ReLU(),
                nn.Linear(20, 4),
            )
        optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
        sparse = updater.attach(network, optimizer, total_steps=40, steps_per_epoch=10, seed=0)
        return network, optimizer, sparse

    network, optimizer, sparse = begin()
    rng = torch.Generator().manual_seed(0)
    with seeded(global_seed):
        for step in range(40):
            x, y = torch.rand(16, 4, 6, 6, generator=rng), torch.arange(16) % 4
            optimizer.zero_grad()
            loss: Tensor = nn.functional.cross_entropy(network(x), y)
            torch.autograd.backward(loss)
            optimizer.step()
            try:
                sparse.check()
            except NotAttached as error:
                raise AssertionError(f"{error} (step {step})") from error
            if step == restart_at:
                saved = network.state_dict(), optimizer.state_dict(), sparse.state_dict()
                network, optimizer, sparse = begin()
                network.load_state_dict(saved[0])
                optimizer.load_state_dict(saved[1])
                sparse.load_state_dict(saved[2])
    return sparse

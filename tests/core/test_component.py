"""A component writes what it uses; a class with the same methods is one too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from debiasbench import Component, ComponentLike, Method
from debiasbench.common.errors import PluginError
from debiasbench.core.settings import Training
from debiasbench.models.mlp import MLP
from debiasbench.sparsity import Sparsify, Static
from debiasbench.testing import check_method, toy_task
from tests.running import fit, fit_whole

FAST = Training(epochs=2, batch_size=16, lr=0.05)


class Bounded(Component):
    """Keeps every weight in [-0.05, 0.05]."""

    @torch.no_grad()
    def constrain_weights(self) -> None:
        for p in self.module.parameters():
            p.clamp_(-0.05, 0.05)


class Halves(Component):
    """Halves weights after every third step, instead of the step."""

    update_replaces_step = True

    def __init__(self) -> None:
        self.updated: list[int] = []

    def due(self, step: int) -> bool:
        return step % 3 == 2

    @torch.no_grad()
    def update(self, step: int) -> None:
        self.updated.append(step)
        for p in self.module.parameters():
            p.mul_(0.5)

    def state_dict(self) -> dict[str, object]:
        return {"updated": self.updated}


@dataclass(frozen=True)
class Trains(Method):
    component: Any = Bounded
    stages: int = 1

    def fit(self, lab: Any) -> Any:
        component, start = self.component(), lab.model()
        for number in range(self.stages):
            start = lab.train(start, name=f"stage{number}", components=[component])
        return start


def test_a_component_that_only_constrains_weights_works_in_every_stage() -> None:
    trained = fit(toy_task(), Trains(stages=2), model=MLP(hidden=(8,)), training=FAST)
    for kept in trained.checkpoints.values():
        assert max(v.abs().max().item() for v in kept.state.values()) <= 0.0501
    assert trained.densities == trained.masks == {}


def test_a_component_that_only_updates_works() -> None:
    made: list[Halves] = []

    def make() -> Halves:
        made.append(Halves())
        return made[0]

    (cost,) = fit_whole(toy_task(), Trains(make), model=MLP(hidden=(8,)), training=FAST).costs
    assert made[0].updated == list(range(2, 20, 3))
    assert cost.steps == 20


def test_a_method_with_a_component_keeps_all_promises() -> None:
    check_method(Trains(Widely))


class Widely(Bounded):
    """Keeps every weight in [-0.5, 0.5]."""

    @torch.no_grad()
    def constrain_weights(self) -> None:
        for p in self.module.parameters():
            p.clamp_(-0.5, 0.5)


def test_the_module_and_the_optimizer_are_released_at_the_end_also_of_a_stage_that_fails() -> None:
    class Fails(Bounded):
        def on_epoch_end(self, epoch: int) -> None:
            raise ValueError("no")

    for kind in (Bounded, Fails):
        made: list[Any] = []
        method = Trains(lambda made=made, kind=kind: made.append(kind()) or made[0])
        if kind is Bounded:
            fit(toy_task(), method, model=MLP(hidden=(8,)), training=FAST)
        else:
            with pytest.raises(PluginError, match="ValueError: no"):
                fit(toy_task(), method, model=MLP(hidden=(8,)), training=FAST)
        assert vars(made[0]) == {}


def test_a_component_and_a_sparse_component_are_all_the_engine_needs() -> None:
    bare, sparse = Component(), Sparsify(Static(density=0.5))
    components: list[ComponentLike] = [bare, sparse]
    needed = {name for name in vars(ComponentLike) if not name.startswith("_")}
    assert len(needed) == 14
    for component in components:
        assert needed <= set(dir(component))
    network = nn.Linear(2, 2)
    bare.on_start(
        network, torch.optim.SGD(network.parameters()), steps=1, steps_per_epoch=1, seed=0, masks={}
    )
    assert not bare.due(0)
    assert not bare.update_replaces_step
    assert bare.settled()
    assert (bare.masks(), bare.densities(), bare.saved_flops({}), bare.state_dict()) == (
        {},
        {},
        0,
        {},
    )
    bare.load_state_dict({})

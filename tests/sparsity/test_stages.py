"""The density that a stage reports is the one that its network has, or the stage fails."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from debiasbench import Method, Model, Shape
from debiasbench.common.errors import PluginError
from debiasbench.core.component import Component
from debiasbench.core.settings import Training
from debiasbench.core.stage import Trained
from debiasbench.models.mlp import MLP
from debiasbench.sparsity import GMP, GraNet, Sparsify, Static
from debiasbench.testing import toy_task
from tests.running import fit, fit_whole

FAST = Training(epochs=1, batch_size=16, lr=0.05)
SPARSE = Static(density=0.2, distribution="uniform")


class Dense(Sparsify):
    """Trains sparsely, and leaves one weight dense."""

    def constrain_weights(self) -> None:
        super().constrain_weights()
        assert self.training is not None
        next(iter(self.training.weights.values())).data.add_(1.0)


class Boastful(Sparsify):
    """Reports half of the real density."""

    def densities(self) -> dict[str, float]:
        return {name: density / 2 for name, density in super().densities().items()}


@dataclass(frozen=True)
class Trains(Method):
    component: type[Sparsify]
    more: Any = None

    def fit(self, lab: Any) -> Any:
        sparse = self.component(SPARSE)
        stage = lab.train(lab.model(), name="main", components=[sparse], select=self.more is None)
        if self.more is not None:
            self.more(stage.objective.network)
        return stage


@dataclass(frozen=True)
class Continues(Method):
    """Trains a stage, and goes on with its network and its masks."""

    updater: Any

    def fit(self, lab: Any) -> Any:
        first = lab.train(lab.model(), name="first", components=[Sparsify(self.updater)])
        return lab.train(first, name="second", components=[Sparsify(self.updater)])


@pytest.mark.parametrize("updater", [GMP(0.1, every="2"), GraNet(0.1, every="2")])
def test_a_stage_that_goes_on_with_a_pruned_network_makes_nothing_dense_again(
    updater: Any,
) -> None:
    model, training = MLP(hidden=(16, 16)), replace(FAST, epochs=2)
    ended = fit(toy_task(), Continues(updater), model=model, training=training)
    weights = [p for p in ended.objective.network.parameters() if p.dim() > 1]
    active = sum(int(p.count_nonzero()) for p in weights)
    assert active <= round(0.1 * sum(p.numel() for p in weights))


@pytest.mark.parametrize(
    ("component", "says"),
    [
        (Dense, r"network\.1\.weight has \d+ weights of \d+ that its mask leaves out but"),
        (Boastful, r"network\.1\.weight has \d+ active weights of \d+ in its mask, but its"),
    ],
)
def test_a_stage_whose_density_is_not_real_says_what_disagrees(
    component: type[Sparsify], says: str
) -> None:
    with pytest.raises(PluginError, match=rf"density of stage 'main' is not .*: {says}"):
        fit(toy_task(), Trains(component), model=MLP(hidden=(8,)), training=FAST)


class Noise(Component):
    """Adds noise to gradients, after those of inactive weights were set to 0."""

    def constrain_gradients(self, *, update_follows: bool) -> None:
        for p in self.module.parameters():
            if p.grad is not None:
                p.grad.add_(0.1)


def test_a_component_that_changes_gradients_later_changes_no_inactive_weight() -> None:
    @dataclass(frozen=True)
    class Both(Method):
        def fit(self, lab: Any) -> Any:
            return lab.train(lab.model(), name="main", components=[Sparsify(SPARSE), Noise()])

    trained = fit(toy_task(), Both(), model=MLP(hidden=(8,)), training=FAST)
    weights = dict(trained.objective.named_parameters())
    for name, mask in trained.masks.items():
        assert not weights[name][~mask].any()


def test_a_method_that_returns_a_stage_after_it_made_its_network_denser_is_refused() -> None:
    def fill(network: nn.Module) -> None:
        for p in network.parameters():
            nn.init.ones_(p)

    with pytest.raises(
        PluginError, match=r"changed weights after lab\.train .* density is another"
    ):
        fit(toy_task(), Trains(Sparsify, fill), model=MLP(hidden=(8,)), training=FAST)


@dataclass(frozen=True)
class Parallel(Model):
    """An MLP inside a wrapper."""

    def build(self, shape: Shape) -> nn.Module:
        return nn.DataParallel(MLP(hidden=(8,)).build(shape))


def test_a_wrapped_network_trains_as_sparsely_as_the_network_itself() -> None:
    seen: list[Trained] = []
    for model in (MLP(hidden=(8,)), Parallel()):
        seen.append(fit(toy_task(), Trains(Sparsify), model=model, training=FAST))
    plain, wrapped = seen
    assert plain.densities == wrapped.densities
    assert plain.masks.keys() == wrapped.masks.keys()
    assert all(torch.equal(wrapped.masks[name], mask) for name, mask in plain.masks.items())
    flops = [
        fit_whole(toy_task(), Trains(Sparsify), model=model, training=FAST).costs[0].flops
        for model in (MLP(hidden=(8,)), Parallel())
    ]
    assert flops[0] == flops[1]


def test_a_frozen_layer_costs_a_forward_pass_and_no_gradients() -> None:
    @dataclass(frozen=True)
    class Probe(Method):
        """Trains the last layer only."""

        def fit(self, lab: Any) -> Any:
            network = lab.model().requires_grad_(False)
            lab.head(network).requires_grad_(True)
            return lab.train(network, name="main")

    task = toy_task()
    (cost,) = fit_whole(task, Probe(), model=MLP(hidden=(8,)), training=FAST).costs
    width, classes = math.prod(task.shape.input), task.shape.classes
    assert cost.flops == pytest.approx(cost.samples * 2 * (width * 8 + 3 * 8 * classes))

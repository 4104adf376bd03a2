"""Which stages are the same stage, and which are one run's own."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from debiasbench import Method, Shape
from debiasbench.common.randomness import seeded
from debiasbench.core.objective import CrossEntropy
from debiasbench.models.cnn import CNN
from debiasbench.models.mlp import MLP
from debiasbench.models.resnet import ResNet18
from debiasbench.models.zoo import Timm, Torchvision
from debiasbench.sparsity import RigL, Sparsify, Static
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.training.identity import identity
from tests.conftest import ACME, ToyPlugin, offering
from tests.running import run
from tests.training.stages import FAST, Flat, make_stage


def network(model: Any = MLP(hidden=(8, 8))) -> nn.Module:  # noqa: B008 - it is frozen
    with seeded(0):
        return model.build(Shape(input=(3, 8, 8), classes=2))


def of(net: nn.Module, **more: Any) -> Any:
    return identity(make_stage(CrossEntropy(net), **more))


@pytest.mark.parametrize("model", [MLP(), CNN(width=4), ResNet18(width=4, stem="small")])
def test_stages_of_builtin_networks_are_shared_and_equal_ones_are_equal(model: Any) -> None:
    first, second = of(network(model)), of(network(model))
    assert first.shared
    assert first == second
    assert of(network(model), components=[Sparsify(RigL(density=0.5))]).shared


def test_stages_on_equal_splits_of_other_names_are_not_the_same() -> None:
    stage = make_stage(CrossEntropy(network()))
    other = replace(stage, view=replace(stage.view, split="val"))
    assert identity(stage).content != identity(other).content


def test_identity_changes_nothing() -> None:
    stage = make_stage(CrossEntropy(network()))
    before = copy.deepcopy(stage.objective.state_dict())
    assert identity(stage) == identity(stage)
    assert all(torch.equal(v, before[n]) for n, v in stage.objective.state_dict().items())


def freeze(net: nn.Module) -> None:
    net[1].requires_grad_(False)  # type: ignore[index,operator]


def tie(net: nn.Module) -> None:
    net[3].bias = net[1].bias  # type: ignore[index,union-attr]


def evaluate(net: nn.Module) -> None:
    net[1].eval()  # type: ignore[index,operator]


def attribute(net: nn.Module) -> None:
    net[1].temperature = 2.0  # type: ignore[index,union-attr]


@pytest.mark.parametrize("change", [freeze, tie, evaluate, attribute])
def test_what_decides_a_stage_is_in_its_identity(change: Callable[[nn.Module], None]) -> None:
    net = network()
    with torch.no_grad():
        net[3].bias.copy_(net[1].bias)  # type: ignore[index,union-attr]
    plain = of(copy.deepcopy(net))
    change(net)
    assert of(net).content != plain.content


def hook(*_: object) -> None:
    """Do nothing."""


class Halved(nn.Parameter):
    """A parameter that may take part in operations with half of its value."""


@pytest.mark.parametrize(
    "spoil",
    [
        lambda net: net[1].register_forward_hook(hook),
        lambda net: net[1].register_forward_pre_hook(hook),
        lambda net: net[1].register_full_backward_hook(hook),
        lambda net: net[1].register_full_backward_pre_hook(hook),
        lambda net: net[1].weight.register_hook(hook),
        lambda net: net[1].weight.register_post_accumulate_grad_hook(hook),
        lambda net: setattr(net[1], "forward", net[3].forward),
        lambda net: setattr(net[1], "scale", lambda x: x),
        lambda net: setattr(net[1], "helper", torch.zeros(1)),
        lambda net: setattr(net[1], "act", functools.wraps(F.relu)(hook)),
        lambda net: setattr(net[1], "weight", Halved(net[1].weight)),
        lambda net: nn.utils.parametrizations.weight_norm(net[1]),
    ],
)
def test_a_network_with_a_hook_or_an_unknown_attribute_is_not_shared(spoil: Any) -> None:
    net = network()
    spoil(net)
    assert not of(net).shared


def test_hooks_of_the_whole_program_end_sharing_while_they_are_there() -> None:
    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        assert not of(network()).shared
    finally:
        handle.remove()
    assert of(network()).shared


@pytest.mark.parametrize(
    "around",
    [
        lambda: torch.autocast("cpu", torch.bfloat16),
        torch.no_grad,
        lambda: torch.device("cpu"),
    ],
)
def test_settings_of_torch_around_a_stage_end_sharing(around: Any) -> None:
    with around():
        assert not of(network()).shared
    assert of(network()).shared


def test_lower_precision_of_matrix_products_ends_sharing() -> None:
    products = torch.backends.mkldnn.matmul
    before = products.fp32_precision
    products.fp32_precision = "bf16"
    try:
        assert not of(network()).shared
    finally:
        products.fp32_precision = before


def test_a_component_with_a_replaced_method_is_not_shared() -> None:
    component = Sparsify(Static(density=0.5))
    component.constrain_weights = lambda: None  # type: ignore[method-assign]
    assert not of(network(), components=[component]).shared


def test_networks_of_torchvision_and_timm_are_shared() -> None:
    for model in (Torchvision("mobilenet_v2"), Timm("test_vit"), Timm("resnet10t")):
        shape = Shape(input=(3, 32, 32), classes=2)
        with seeded(0):
            net = model.build(shape)
        assert of(net).shared


def test_networks_objectives_and_components_of_others_are_not_shared() -> None:
    class Ours(CrossEntropy):
        """A loss of another package."""

    @dataclass(frozen=True)
    class Mine(Static):
        """An updater of another package."""

    assert not of(Flat()).shared
    assert not of(nn.Sequential(nn.Flatten(), Flat())).shared
    assert not identity(make_stage(Ours(network()))).shared
    assert not of(network(), components=[Sparsify(Mine(density=0.5))]).shared


def test_another_seed_or_setting_is_another_stage() -> None:
    plain = of(network()).content
    assert of(network(), seed=1).content != plain
    assert of(network(), training=replace(FAST, lr=0.1)).content != plain
    assert of(network(), subset=torch.arange(20)).content != plain


@dataclass(frozen=True)
class Probe(Method):
    """Freezes everything but the head, as a linear probe."""

    def fit(self, lab: Any) -> Any:
        net = lab.model()
        net.requires_grad_(False)
        lab.head(net).requires_grad_(True)
        return lab.train(net, name="train")


@dataclass(frozen=True)
class Scaled(Method):
    """Scales a gradient by a hook on a parameter."""

    def fit(self, lab: Any) -> Any:
        net = lab.model()
        lab.head(net).weight.register_hook(lambda gradient: 10 * gradient)
        return lab.train(net, name="train")


@pytest.mark.parametrize("other", ["probe", "scaled"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_method_that_trains_otherwise_takes_no_weights_from_erm_and_gives_none(
    tmp_path: Path, other: str, first: int
) -> None:
    plugins = Plugins([(ToyPlugin(), ACME), (offering(probe=Probe, scaled=Scaled), ACME)])
    specs = [make_spec(plugins, method=m, dataset="toy") for m in ("erm", other)]

    def weights(spec: Any, folder: str) -> str:
        done = run(spec, plugins, results=tmp_path / folder, data_root=tmp_path, keep_weights=True)
        assert done.record.weights is not None
        return done.record.weights["sha256"]

    alone = [weights(spec, f"alone-{i}") for i, spec in enumerate(specs)]
    order = [first, 1 - first]
    assert {i: weights(specs[i], "shared") for i in order} == {i: alone[i] for i in order}
    assert alone[0] != alone[1]

"""A network asks for parameter groups, whatever the method; factors are multiplied."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from debiasbench import Batch, Objective, ParameterGroup
from debiasbench.core.objective import CrossEntropy
from debiasbench.core.settings import Training
from debiasbench.training.optimizers import make_optimizer, parameter_groups


class NoDecay(nn.Sequential):
    """Its biases have no weight decay."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 4), nn.Linear(4, 2))

    def parameter_groups(self) -> list[ParameterGroup]:
        biases = [p for p in self.parameters() if p.dim() < 2]
        return [ParameterGroup(biases, weight_decay=0.0)]


class Two(Objective):
    """Two networks; the second, and a bias of the first, learn slowly."""

    def __init__(self, network: nn.Module, other: nn.Module) -> None:
        super().__init__(network)
        self.other = other

    def forward(self, batch: Batch) -> Tensor:
        raise NotImplementedError

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        return [ParameterGroup(list(self.other.parameters()), lr=0.1, weight_decay=0.5)]


def settings(objective: Objective) -> dict[str, tuple[float, float]]:
    training = Training(lr=1.0, weight_decay=0.01, optimizer="adamw")
    optimizer = make_optimizer(objective.parameters(), training, groups=parameter_groups(objective))
    of = {
        id(p): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    return {name: of[id(p)] for name, p in objective.named_parameters()}


def test_biases_of_a_network_have_no_decay_under_a_plain_loss() -> None:
    found = settings(CrossEntropy(NoDecay()))
    assert {n: d for n, (_, d) in found.items()} == {
        "network.0.weight": 0.01,
        "network.0.bias": 0.0,
        "network.1.weight": 0.01,
        "network.1.bias": 0.0,
    }
    assert {lr for lr, _ in found.values()} == {1.0}


def test_copies_and_replaced_layers_are_found_when_training_begins() -> None:
    network = copy.deepcopy(NoDecay())
    network[1] = nn.Linear(4, 5)
    assert settings(CrossEntropy(network))["network.1.bias"] == (1.0, 0.0)


def test_factors_of_method_and_network_are_multiplied() -> None:
    found = settings(Two(NoDecay(), NoDecay()))
    assert found["network.0.weight"] == (1.0, 0.01)
    assert found["network.0.bias"] == (1.0, 0.0)
    assert found["other.0.weight"] == (0.1, pytest.approx(0.005))
    assert found["other.0.bias"] == (0.1, 0.0)
    assert len(found) == 8


def test_without_a_wish_the_groups_are_those_of_the_method() -> None:
    objective = Two(nn.Linear(3, 2), nn.Linear(3, 2))
    (group,) = parameter_groups(objective)
    assert (group.lr, group.weight_decay, len(group.parameters)) == (0.1, 0.5, 2)
    assert parameter_groups(CrossEntropy(nn.Linear(3, 2))) == ()


def test_a_network_inside_a_network_is_not_counted_twice() -> None:
    class Outer(NoDecay):
        def __init__(self) -> None:
            super().__init__()
            self.append(NoDecay())

    found = settings(CrossEntropy(Outer()))
    assert sum(decay == 0 for _, decay in found.values()) == 4


def test_weights_decay_and_biases_do_not() -> None:
    network = NoDecay()
    objective = CrossEntropy(network)
    training = Training(lr=0.1, weight_decay=0.5, optimizer="adamw")
    optimizer = make_optimizer(objective.parameters(), training, groups=parameter_groups(objective))
    before = copy.deepcopy(network.state_dict())
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in network.named_parameters():
        expected = before[name] if name.endswith("bias") else before[name] * 0.95
        assert torch.allclose(p, expected)

"""A method gets results of its stages that it cannot change, and no validation results that it
does not declare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import pytest
import torch

from debiasbench import Method, Supervision
from debiasbench.common.errors import PluginError
from debiasbench.core.settings import Training
from debiasbench.core.stage import Checkpoint, Trained
from debiasbench.core.view import HeldOut
from debiasbench.methods.erm import ERM
from debiasbench.models.mlp import MLP
from debiasbench.records.selection import RULES
from debiasbench.testing import toy_task
from debiasbench.training.predict import Predictor
from debiasbench.training.trainer import Sequential
from tests.running import fit

FAST = Training(epochs=3, batch_size=32, lr=0.05)


def run(body: Callable[[Any], Any], val: Any = "none") -> Trained:
    @dataclass(frozen=True)
    class Made(Method):
        supervision = Supervision(val=val)

        def fit(self, lab: Any) -> Any:
            return body(lab)

    return fit(toy_task(), Made(), model=MLP(hidden=(8,)), training=FAST, owner="method 'm'")


@pytest.mark.parametrize(
    ("val", "seen"),
    [("none", set()), ("inputs", set()), ("select", set(RULES)), ("fit", set(RULES))],
)
def test_a_method_sees_the_checkpoints_of_selection_rules_only_if_it_reads_validation_labels(
    val: str, seen: set[str]
) -> None:
    given: list[Trained] = []

    def train(lab: Any) -> Trained:
        given.append(lab.train(lab.model(), name="train"))
        return given[0]

    trained = run(train, val)
    assert set(given[0].checkpoints) == seen
    assert set(trained.checkpoints) == set(RULES)


def test_the_result_is_that_of_a_method_that_keeps_its_stage_to_itself() -> None:
    plain = fit(toy_task(), ERM(), model=MLP(hidden=(8,)), training=FAST)
    other = run(lambda lab: lab.train(lab.model(), name="train"), "select")
    for rule, kept in plain.checkpoints.items():
        assert kept.epoch == other.checkpoints[rule].epoch
        same = other.checkpoints[rule].state
        assert all(torch.equal(value, same[name]) for name, value in kept.state.items())


def forged(stage: Trained) -> Trained:
    state = {name: torch.zeros_like(v) for name, v in stage.objective.state_dict().items()}
    return replace(stage, checkpoints=dict.fromkeys(RULES, Checkpoint(1, 1.0, state)))


def retyped(stage: Trained) -> Trained:
    return Trained(stage.objective, stage.checkpoints, {"network.1.weight": 0.001})


@pytest.mark.parametrize("val", ["none", "fit"])
@pytest.mark.parametrize("forge", [forged, retyped])
def test_a_result_that_no_stage_gave_is_refused(forge: Any, val: str) -> None:
    with pytest.raises(PluginError, match=r"method 'm' returned a Trained that lab\.train did not"):
        run(lambda lab: forge(lab.train(lab.model(), name="train")), val)


def test_a_changed_mapping_has_no_effect_on_the_result() -> None:
    def change(lab: Any) -> Any:
        stage = lab.train(lab.model(), name="train")
        stage.checkpoints.update(forged(stage).checkpoints)
        stage.densities["network.1.weight"] = 0.001
        return stage

    trained = run(change, "select")
    assert trained.densities == {}
    assert all(v.any() for kept in trained.checkpoints.values() for v in kept.state.values())


@pytest.mark.parametrize("change", ["head", "half"])
def test_a_network_that_was_changed_after_its_stage_is_an_error_of_the_method(change: str) -> None:
    def body(lab: Any) -> Any:
        trained = lab.train(lab.model(), name="train")
        network = trained.objective.network
        if change == "half":
            network.half()
        else:
            network[-1] = torch.nn.Sequential(torch.nn.Linear(8, 2))  # other parameter names
        return trained

    with pytest.raises(PluginError, match="method 'm' changed weights after"):
        run(body)


def test_weights_of_a_checkpoint_that_were_changed_in_place_are_refused() -> None:
    def change(lab: Any) -> Any:
        stage = lab.train(lab.model(), name="train")
        for value in stage.checkpoints["val_unbiased"].state.values():
            value.mul_(2)
        return stage

    with pytest.raises(PluginError, match=r"changed weights after lab\.train"):
        run(change, "select")


def reachable(value: Any, seen: dict[int, Any]) -> None:
    """Collect all objects that attributes, items and bound methods lead to."""
    if id(value) in seen or isinstance(value, (str, int, float, type(None), torch.Tensor)):
        return
    seen[id(value)] = value
    inner: list[Any] = list(vars(value).values()) if hasattr(value, "__dict__") else []
    inner += [getattr(value, "__self__", None), *getattr(value, "args", ())]
    if is_dataclass(value):
        inner += [getattr(value, f.name) for f in fields(value)]
    if isinstance(value, Mapping):
        inner += value.values()
    if isinstance(value, (list, tuple, set)):
        inner += value
    for item in inner:
        if not isinstance(item, type) and type(item).__name__ != "module":
            reachable(item, seen)


@pytest.mark.parametrize("when", ["before", "after"])
def test_no_attribute_of_a_lab_leads_to_the_validation_split(when: str) -> None:
    found: dict[int, Any] = {}

    def look(lab: Any) -> Any:
        stage = lab.train(lab.model(), name="train")
        reachable((lab, stage) if when == "after" else lab, found)
        with pytest.raises(AttributeError):
            _ = lab._backend._validation
        return stage

    run(look)
    hidden = (HeldOut, Sequential, Predictor)
    assert [value for value in found.values() if isinstance(value, hidden)] == []
    lengths = {len(value) for value in found.values() if type(value).__name__ == "Placed"}
    assert lengths == {160}, "only the training split"

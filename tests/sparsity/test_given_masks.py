"""A stage that begins from given masks has exactly these, and says which of them do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from debiasbench import Method, Shape
from debiasbench.common.errors import OptionError
from debiasbench.common.randomness import seeded
from debiasbench.core.objective import CrossEntropy
from debiasbench.core.settings import Training
from debiasbench.core.stage import Trained
from debiasbench.models.mlp import MLP
from debiasbench.sparsity import GMP, SET, RigL, Sparsify, SparsityError, Static, global_masks
from debiasbench.sparsity.params import maskable
from debiasbench.testing import check_method, toy_task
from debiasbench.training.identity import identity
from tests.running import fit, fit_whole
from tests.training.stages import make_stage

FAST = Training(epochs=2, batch_size=16, lr=0.05)
NAMES = ("network.1.weight", "network.3.weight")  # (8, 192) and (2, 8)


def drawn(density: float = 0.3, *names: str) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = {"network.1.weight": (8, 192), "network.3.weight": (2, 8)}
    masks = {n: torch.rand(shape, generator=rng) < density for n, shape in shapes.items()}
    return {name: masks[name] for name in names or NAMES}


def trained(component: Any, body: Any = None, components: Any = tuple, whole: bool = False) -> Any:
    @dataclass(frozen=True)
    class Made(Method):
        def fit(self, lab: Any) -> Any:
            if body is not None:
                return body(lab)
            return lab.train(lab.model(), name="main", components=[component])

    run = fit_whole if whole else fit
    return run(toy_task(), Made(), model=MLP(hidden=(8,)), training=FAST, components=components)


def weights(stage: Trained) -> Mapping[str, Tensor]:
    return {n: p.detach() for n, p in stage.objective.named_parameters() if n in NAMES}


def test_a_static_updater_trains_the_given_part_of_the_network_and_nothing_else() -> None:
    masks = drawn()
    stage = trained(Sparsify(Static(density=0.9), masks))
    for name, weight in weights(stage).items():
        assert torch.equal(stage.masks[name], masks[name])
        assert not weight[~masks[name]].any()
        assert stage.densities[name] == masks[name].float().mean().item()
    assert set(stage.checkpoints), "epochs count as settled from the first"
    assert stage.checkpoints["last"].epoch == 2


def test_a_layer_without_a_mask_is_dense() -> None:
    stage = trained(Sparsify(Static(), drawn(0.3, "network.1.weight")))
    assert stage.densities["network.1.weight"] < 0.4
    assert stage.densities.get("network.3.weight", 1.0) == 1.0
    assert weights(stage)["network.3.weight"].all()


def test_the_flops_saved_are_those_of_the_given_masks() -> None:
    masks = drawn()
    (dense,) = trained(None, lambda lab: lab.train(lab.model(), name="main"), whole=True).costs
    (sparse,) = trained(Sparsify(Static(), masks), whole=True).costs
    off = sum(int((~mask).sum()) for mask in masks.values())
    assert dense.flops - sparse.flops == pytest.approx(dense.samples * 3 * 2 * off)


@pytest.mark.parametrize("updater", [RigL(every="3"), SET(every="3")])
def test_a_dynamic_updater_keeps_the_number_of_weights_of_each_given_mask(updater: Any) -> None:
    masks = drawn()
    stage = trained(Sparsify(updater, masks))
    changed = [name for name in NAMES if not torch.equal(stage.masks[name], masks[name])]
    assert changed
    assert {n: int(m.sum()) for n, m in stage.masks.items()} == {
        n: int(m.sum()) for n, m in masks.items()
    }


def test_pruning_goes_on_from_the_given_masks() -> None:
    masks = drawn(0.5)
    density = sum(int(m.sum()) for m in masks.values()) / (8 * 192 + 16)
    updater = GMP(density=0.2, initial_density=density, every="2", stop=0.5)
    stage = trained(Sparsify(updater, masks))
    assert sum(int(m.sum()) for m in stage.masks.values()) == round(0.2 * (8 * 192 + 16))
    with pytest.raises(OptionError, match=r"begins with 1: set initial_density=0\.5"):
        trained(Sparsify(GMP(density=0.2), masks))


def test_given_masks_come_before_those_of_an_earlier_stage() -> None:
    first, second = drawn(0.3), drawn(0.6)

    def both(lab: Any) -> Any:
        one = lab.train(lab.model(), name="one", components=[Sparsify(Static(), first)])
        again = lab.train(one, name="again", components=[Sparsify(Static())])
        assert all(torch.equal(again.masks[name], first[name]) for name in NAMES)
        return lab.train(one, name="two", components=[Sparsify(Static(), second)])

    stage = trained(None, both)
    assert all(torch.equal(stage.masks[name], second[name]) for name in NAMES)


def test_a_mask_that_the_caller_changes_later_does_not_change_the_stage() -> None:
    masks = drawn()
    before = {name: mask.clone() for name, mask in masks.items()}
    component = Sparsify(Static(), masks)
    for mask in masks.values():
        mask.fill_(True)
    stage = trained(component)
    assert all(torch.equal(stage.masks[name], before[name]) for name in NAMES)


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        ({}, "masks has no mask"),
        ({"network.1.weight": torch.ones(8, 192)}, r"bool tensor, not torch\.float32"),
        ({"network.1.weight": [True]}, "bool tensor, not list"),
    ],
)
def test_what_is_no_mask_is_refused_at_once(masks: Any, says: str) -> None:
    with pytest.raises(SparsityError, match=says):
        Sparsify(Static(), masks)


@pytest.mark.parametrize(
    ("updater", "masks", "says"),
    [
        (
            Static(),
            {"1.weight": torch.ones(8, 192).bool()},
            r"Unknown layer with a mask '1\.weight'\. Did you mean 'network\.1\.weight'\?",
        ),
        (
            Static(),
            {"network.3.bias": torch.ones(2).bool()},
            r"Unknown layer with a mask 'network\.3\.bias'.*Available: network\.1\.weight",
        ),
        (
            Static(),
            {"network.3.weight": torch.ones(8, 2).bool()},
            r"The mask of network\.3\.weight must have shape \(2, 8\), not \(8, 2\)",
        ),
        (
            RigL(),
            {"network.3.weight": torch.zeros(2, 8).bool()},
            r"The mask of network\.3\.weight keeps no weight, so RigL has none to exchange",
        ),
        (
            RigL(pattern="constant_fan_in"),
            {"network.3.weight": torch.arange(16).view(2, 8) < 5 + 8},
            r"network\.3\.weight does not keep to the pattern constant_fan_in: .* 5, 8 weights",
        ),
        (
            Static(density=0.5, pattern="2:4"),
            {"network.3.weight": torch.arange(16).view(2, 8) < 6},
            r"network\.3\.weight does not keep to the pattern 2:4",
        ),
    ],
)
def test_masks_that_do_not_fit_the_network_or_the_updater_are_named(
    updater: Any, masks: Any, says: str
) -> None:
    with pytest.raises(OptionError, match=says):
        trained(Sparsify(updater, masks))


def test_masks_that_keep_to_the_pattern_are_used() -> None:
    two_of_four = torch.arange(16).view(2, 8) % 4 < 2
    updater = Static(density=0.5, pattern="2:4")
    stage = trained(Sparsify(updater, {"network.3.weight": two_of_four}))
    assert torch.equal(stage.masks["network.3.weight"], two_of_four)


def test_an_empty_mask_removes_a_layer_under_a_static_updater() -> None:
    stage = trained(Sparsify(Static(), {"network.1.weight": torch.zeros(8, 192).bool()}))
    assert not weights(stage)["network.1.weight"].any()


def test_stages_with_other_masks_are_other_stages_and_equal_ones_are_shared() -> None:
    with seeded(0):
        network = MLP(hidden=()).build(Shape(input=(3, 8, 8), classes=2))

    def of(*masks: dict[str, Tensor]) -> Any:
        return identity(make_stage(CrossEntropy(network), components=[Sparsify(Static(), *masks)]))

    left = {"network.1.weight": torch.arange(384).view(2, 192) < 100}
    right = {"network.1.weight": torch.arange(384).view(2, 192) >= 284}
    assert of(left).shared
    assert of(left).content == of(left).content
    assert of(left).content != of(right).content
    assert of(left).content != of().content


@dataclass(frozen=True)
class LotteryTicket(Method):
    """Prunes a trained network, and trains the part that is left from the first weights again."""

    def fit(self, lab: Any) -> Any:
        network = lab.model()
        start = {name: value.clone() for name, value in network.state_dict().items()}
        first = lab.train(network, name="prune")
        scores = {n: p.detach().abs() for n, p in maskable(first.objective).items()}
        masks = global_masks(scores, 0.3)
        network.load_state_dict(start)
        return lab.train(network, name="train", components=[Sparsify(Static(), masks)])


def test_a_method_that_trains_a_fixed_part_of_a_network_keeps_all_promises() -> None:
    check_method(LotteryTicket())

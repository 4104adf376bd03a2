"""The benchmark: what is measured, who takes part, and what is made of the seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from debiasbench import Component, Method
from debiasbench.common.progress import Progress
from debiasbench.measure import bench as module
from debiasbench.measure.bench import Bench, bench
from debiasbench.measure.stopwatch import WARM_UP
from debiasbench.runs.session import Session
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from tests.conftest import ACME, ToyPlugin, offering
from tests.measure.benches import BENCH

Cli = Callable[..., Result]

STEPS, ROUNDS = 2, 3


pytestmark = pytest.mark.usefixtures("small_products")


def measured(*methods: object, method: str = "erm", **words: Any) -> Bench:
    plugins = Plugins([(ToyPlugin(), ACME), *((m, ACME) for m in methods)])
    spec = make_spec(plugins, method=method, dataset="toy", **words)
    session = Session(plugins, data_root=Path(), device="cpu")
    return bench(session, spec, steps=STEPS, rounds=ROUNDS, workers=0)


@pytest.fixture(scope="module")
def plain() -> Iterator[Bench]:
    """One measurement that several tests look at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PRODUCTS", (16, 32))
        yield measured()


# --- what is measured -------------------------------------------------------------------------


def test_contenders_see_the_same_number_of_images(plain: Bench) -> None:
    assert plain.batch_size == 16
    each = (WARM_UP + STEPS) * 16
    assert plain.samples == {"engine": each, "bare": each, "loader": each}


def test_every_round_of_every_contender_is_kept(plain: Bench) -> None:
    assert {name: len(s) for name, s in plain.training.items()} == dict.fromkeys(
        ("engine", "bare", "loader"), ROUNDS
    )
    assert {name: len(s) for name, s in plain.evaluation.items()} == dict.fromkeys(
        ("engine", "bare"), ROUNDS
    )
    everything = [*plain.training.values(), *plain.evaluation.values(), plain.around]
    assert all(value > 0 for seconds in everything for value in seconds)
    assert plain.evaluated == 200  # the whole test split
    assert plain.memory == {}  # a CPU counts no allocations


def test_the_parts_of_a_step_are_all_of_it(plain: Bench) -> None:
    parts = [plain.split[p] for p in ("data", "forward", "backward", "optimizer", "sparsity")]
    assert [len(p) for p in parts] == [STEPS] * 5
    sums = [sum(step) for step in zip(*parts, strict=True)]
    assert sums == pytest.approx(plain.split["step"], rel=1e-6)


def test_the_flops_are_those_of_the_network_over_a_batch(plain: Bench) -> None:
    hidden = plain.spec["model"]["options"]["hidden"]
    widths = [3 * 8 * 8, *hidden, 2]
    assert plain.flops == 16 * sum(2 * a * b for a, b in pairwise(widths))


def test_what_a_component_does_counts_as_sparsity() -> None:
    found = measured(offering(sleepy=Sleepy), method="sleepy")
    assert min(found.split["sparsity"]) >= 0.02  # on gradients, and in the update
    assert min(found.training["engine"]) >= STEPS * 0.02
    assert found.notes[0].startswith("An update interval such as every=5%")


class Sleeps(Component):
    """A component that waits wherever it may act."""

    def due(self, step: int) -> bool:
        return True

    def constrain_gradients(self, *, update_follows: bool) -> None:
        time.sleep(0.01)

    def constrain_weights(self) -> None:
        raise AssertionError("an update follows every step, and leaves the weights constrained")

    def update(self, step: int) -> None:
        time.sleep(0.01)


@dataclass(frozen=True)
class Sleepy(Method):
    """Trains beside a component that waits."""

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model(), components=[Sleeps()], name="train")


def test_of_several_stages_the_last_is_measured_as_the_method_asks_for_it() -> None:
    found = measured(method="jtt")
    assert found.stage == "train"
    assert found.notes[0] == "The method has the stages identify, train; the last one is measured."


def test_a_batch_larger_than_the_data_is_all_of_them() -> None:
    found = measured(training={"batch_size": 1000, "schedule": "plateau"})
    assert found.batch_size == 160
    assert set(found.samples.values()) == {(WARM_UP + STEPS) * 160}


@pytest.mark.parametrize("method", ["groupdro", "lff", "rest", "dfr", "masktune"])
def test_stages_with_weights_labels_extra_networks_and_masks_are_measured(method: str) -> None:
    found = measured(method=method, training={"clip_norm": 1.0})
    assert len(set(found.samples.values())) == 1


# --- who is measured --------------------------------------------------------------------------


def test_contenders_take_turns_in_another_order_each_round_and_the_first_does_not_count() -> None:
    calls: list[tuple[str, int]] = []

    def contender(name: str) -> Callable[[int], int]:
        def call(steps: int) -> int:
            calls.append((name, steps))
            return len(calls)

        return call

    found = module._in_turn({name: contender(name) for name in "ab"}, "turns", 5, 2, Progress())
    assert calls == [("a", 1), ("b", 1), ("b", 5), ("a", 5), ("a", 5), ("b", 5)]
    assert found == {"a": [4, 5], "b": [3, 6]}


def test_figures_follow_from_raw_seconds() -> None:
    assert BENCH.ratios("bare") == [1.0, 1.5, 0.5]  # seconds of bare / of the engine
    assert BENCH.evaluation_ratios() == [0.5, 2.0, 0.5]
    assert BENCH.images_per_second("engine") == 4 * 50 / 2.0
    assert BENCH.flops_per_second() == 3 * 1e9 * 4 / 2.0
    assert BENCH.peak() == (1000, 2e9 / 0.25)  # of 2e6 / 1e-3 and that

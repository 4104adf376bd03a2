"""`debiasbench bench`: the contenders, what is made of their seconds, and what is printed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from click.testing import Result
from torch import nn

from debiasbench import Dataset, Method, Task, hookimpl
from debiasbench.cli.bench import report
from debiasbench.common.progress import Silent
from debiasbench.core.data import Split
from debiasbench.core.prepare import Prepare
from debiasbench.measure import bench as module
from debiasbench.measure.baselines import for_timing
from debiasbench.measure.bench import Bench, bench
from debiasbench.measure.image_files import Shuffled, is_image, loading, orders
from debiasbench.measure.rehearsal import Listening
from debiasbench.measure.stopwatch import WARM_UP
from debiasbench.runs.session import Session
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.testing import toy_task
from debiasbench.training.placed import PlacedTask
from tests.conftest import ACME, ToyPlugin, offering

Cli = Callable[..., Result]

STEPS, ROUNDS = 2, 3
QUICK = ("bench", "--dataset", "toy", "--steps", STEPS, "--rounds", 1, "--workers", 0)


@pytest.fixture(autouse=True)
def _small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PRODUCTS", (16, 32))


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


class Sleeps:
    """A component that waits wherever it may act."""

    update_replaces_step = False

    def on_start(self, module: nn.Module, optimizer: Any, **more: Any) -> None: ...

    def due(self, step: int) -> bool:
        return True

    def constrain_gradients(self, *, update_follows: bool) -> None:
        time.sleep(0.01)

    def constrain_weights(self) -> None:
        raise AssertionError("an update follows every step, and leaves the weights constrained")

    def update(self, step: int) -> None:
        time.sleep(0.01)

    def on_epoch_end(self, epoch: int) -> None: ...
    def on_end(self) -> None: ...

    def settled(self) -> bool:
        return True

    def masks(self) -> dict[str, Any]:
        return {}

    def densities(self) -> dict[str, float]:
        return {}

    def saved_flops(self, forward: Any) -> float:
        return 0.0


@dataclass(frozen=True)
class Sleepy(Method):
    """Trains beside a component that waits."""

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model(), components=[Sleeps()], name="train")


def test_of_several_stages_the_last_is_measured_as_the_method_asks_for_it() -> None:
    found = measured(method="jtt")
    assert found.stage == "train"
    assert found.notes[0] == "The method has the stages identify, train; the last one is measured."


@dataclass(frozen=True)
class Untrained(Method):
    """Returns a network as it is."""

    def fit(self, lab: Any) -> Any:
        return lab.model()


def test_a_method_that_trains_nothing_is_an_error(debiasbench: Cli) -> None:
    result = debiasbench(*QUICK, "--method", "untrained", extra=(offering(untrained=Untrained),))
    assert result.exit_code == 2
    assert "Method untrained trains no stage" in result.stderr


def test_a_batch_larger_than_the_data_is_all_of_them() -> None:
    found = measured(training={"batch_size": 1000, "schedule": "plateau"})
    assert found.batch_size == 160
    assert set(found.samples.values()) == {(WARM_UP + STEPS) * 160}


@pytest.mark.parametrize("method", ["groupdro", "lff", "rest", "dfr"])
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

    found = module._in_turn({name: contender(name) for name in "ab"}, "turns", 5, 2, Silent())
    assert calls == [("a", 1), ("b", 1), ("b", 5), ("a", 5), ("a", 5), ("b", 5)]
    assert found == {"a": [4, 5], "b": [3, 6]}


def coloured(channels: int) -> Task:
    """The toy task with a mean and a deviation, in one or three channels."""
    task = toy_task()
    splits = {
        name: Split(s.x[:, :channels].contiguous(), s.y, s.bias, s.num_biases)
        for name, s in task.splits().items()
    }
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.1)[:channels]
    return replace(task, **splits, mean=mean, std=std)


def stage_of(task: Task, batch_size: int = 16) -> Any:
    """What a plain method asks for on a task."""
    listening = Listening()
    plugins = Plugins()
    spec = make_spec(plugins, method="erm", model="mlp", training={"batch_size": batch_size})
    session = Session(plugins, device="cpu")
    session.rehearse(spec, listening, PlacedTask(task, session.execution.device))
    return for_timing(listening.stages[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_files_hold_the_images_and_classes_of_the_stage(channels: int) -> None:
    task = coloured(channels)
    with loading(stage_of(task), task, files=40, workers=0) as (loader, _):
        dataset: Any = loader.dataset
        expected = Prepare(task)(task.train.x)
        found = {int(Path(path).stem): dataset[i] for i, (path, _) in enumerate(dataset.samples)}
    assert sorted(found) == list(range(40))
    for at, (x, y) in found.items():
        torch.testing.assert_close(x, expected[at])
        assert y == task.train.y[at]


def test_a_loader_with_processes_reads_as_many_batches_as_a_round_takes() -> None:
    task = coloured(3)
    with loading(stage_of(task), task, files=40, workers=1) as (loader, order):
        for steps in (2, 5):
            order.steps = steps
            assert [len(y) for _, y in loader] == [16] * steps


def test_an_order_has_whole_batches_and_every_sample_once_an_epoch() -> None:
    batches = orders(torch.arange(8), 4)
    first = torch.cat([next(batches), next(batches)])
    assert first.sort().values.tolist() == list(range(8))
    assert {len(next(batches)) for _ in range(5)} == {4}


def test_a_batch_may_be_larger_than_there_are_files() -> None:
    order = Shuffled(3, 8)
    order.steps = 2
    assert [len(index) for index in order] == [8, 8]
    assert {i for index in order for i in index} == {0, 1, 2}


# --- data without images ----------------------------------------------------------------------


@dataclass(frozen=True)
class Rows(Dataset):
    """Vectors of five numbers."""

    training = {"epochs": 1, "batch_size": 8}  # noqa: RUF012 - as plugins write it
    model = "mlp"

    def load(self, root: Path) -> Task:
        rng = torch.Generator().manual_seed(0)

        def split(n: int) -> Split:
            y = torch.arange(n) % 2
            return Split(torch.rand(n, 5, generator=rng), y, (torch.arange(n) // 2) % 2, 2)

        names = ("a", "b")
        return Task(split(40), split(8), split(8), names, names, torch.eye(2, dtype=torch.bool))


class RowsPlugin:
    """Offers them."""

    @hookimpl
    def debiasbench_register_datasets(self, register: Callable[..., None]) -> None:
        register("rows", Rows)


def test_vectors_have_no_data_loader_and_a_note_says_so(debiasbench: Cli) -> None:
    words = ("bench", "--dataset", "rows", "--steps", 2, "--rounds", 1)
    result = debiasbench(*words, extra=(RowsPlugin(),))
    assert result.exit_code == 0, result.output
    assert "bare loop" in result.stdout
    assert result.stdout.splitlines()[-1] == (
        "No DataLoader: samples are not 8-bit images of one or three channels."
    )
    assert not is_image(Rows().load(Path()))


# --- what is made of it -----------------------------------------------------------------------

BENCH = Bench(
    spec={"method": {"name": "erm"}, "dataset": {"name": "toy"}, "model": {"name": "mlp"},
          "sparse": {"name": "static"}},
    stage="train", batch_size=50, steps=4,
    training={"engine": [1.0, 2.0, 4.0], "bare": [1.0, 3.0, 2.0], "loader": [4.0, 4.0, 4.0]},
    samples={"engine": 350, "bare": 350, "loader": 350}, around=[0.5, 0.5, 0.25],
    memory={"engine": [3_000_000] * 3, "bare": [2_000_000] * 3, "loader": [2_000_000] * 3},
    evaluation={"engine": [0.5, 0.25, 0.5], "bare": [0.25, 0.5, 0.25]}, evaluated=100,
    split={"data": [0.1, 0.3], "forward": [0.2, 0.2], "backward": [0.4, 0.4],
           "optimizer": [0.1, 0.1], "sparsity": [0.0, 0.2], "step": [0.8, 1.2]},
    flops=1e9, products={"100": [1e-3, 2e-3], "1000": [0.5, 0.25]},
    precision="fp32", compile="off", deterministic=False, workers=2,
    hardware="abacus", torch="2.7.0", python="3.11.7",
    notes=["A note."],
)  # fmt: skip


def test_figures_follow_from_raw_seconds() -> None:
    assert BENCH.ratios("bare") == [1.0, 1.5, 0.5]  # seconds of bare / of the engine
    assert BENCH.evaluation_ratios() == [0.5, 2.0, 0.5]
    assert BENCH.images_per_second("engine") == 4 * 50 / 2.0
    assert BENCH.flops_per_second() == 3 * 1e9 * 4 / 2.0
    assert BENCH.peak() == (1000, 2e9 / 0.25)  # of 2e6 / 1e-3 and that


def test_the_table_by_its_exact_words() -> None:
    assert (
        report(BENCH)
        == """\
mlp on toy with erm, sparse by static: batches of 50, fp32; torch 2.7.0, Python 3.11.7, abacus

Training, medians of 3 rounds with 4 steps each. The ratio is the speed of debiasbench divided by \
the speed of the other loop.
               images/s    ms/step    ratio    min to max    peak MB
-----------  ----------  ---------  -------  ------------  ---------
debiasbench         100     500.00                                 3
bare loop           100     500.00    1.000  0.50 to 1.50          2
DataLoader           50    1000.00    2.000  1.00 to 4.00          2
In addition, debiasbench needed 500 ms for the 3 warm-up steps and for the start and the end of \
the stage.

Evaluation of 100 test images:
               images/s    ratio    min to max
-----------  ----------  -------  ------------
debiasbench         200
bare loop           400    0.500  0.50 to 2.00

Mean time of the parts of a step, with a wait for the device after each part:
                ms      %
---------  -------  -----
data        200.00   20.0
forward     200.00   20.0
backward    400.00   40.0
optimizer   100.00   10.0
sparsity    100.00   10.0
step       1000.00  100.0

A step has 3 GFLOP, so debiasbench reaches 6.0 GFLOP/s: 75.0 % of the 8.0 GFLOP/s of fp32 products \
of 1000 x 1000 matrices.

A note."""
    )


def test_the_table_holds_what_the_json_holds(debiasbench: Cli) -> None:
    words = ("--sparse", "static:density=0.5", "--set", "train.lr=0.01", "--batch-size", 20)
    result = debiasbench(*QUICK, "--rounds", 3, *words, "--json", "found.json")
    assert result.exit_code == 0, result.output
    data = json.loads(Path("found.json").read_text())
    assert result.stdout == report(Bench(**data)) + "\n"
    seconds = zip(data["training"]["engine"], data["training"]["bare"], strict=True)
    ratios = sorted(bare / engine for engine, bare in seconds)
    assert len(ratios) == 3
    shown = next(line for line in result.stdout.splitlines() if "bare loop" in line).split()
    assert shown[4:] == [f"{median(ratios):.3f}", f"{ratios[0]:.2f}", "to", f"{ratios[2]:.2f}"]
    assert data["batch_size"] == 20
    assert data["spec"]["method"]["name"] == "erm"  # the first of all methods
    assert data["spec"]["sparse"]["options"]["density"] == 0.5
    assert data["spec"]["training"]["lr"] == 0.01


def test_a_dash_prints_json_alone(debiasbench: Cli) -> None:
    result = debiasbench(*QUICK, "--json", "-")
    assert result.exit_code == 0, result.output
    assert Bench(**json.loads(result.stdout)).stage == "train"
    assert result.stderr == ""


# --- errors -----------------------------------------------------------------------------------


def test_an_unknown_method_is_the_usual_error(debiasbench: Cli) -> None:
    result = debiasbench(*QUICK, "--method", "groupdr")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "Error: Unknown method 'groupdr'. Did you mean 'groupdro'? Available: dfr, erm"
    )


def test_a_file_that_cannot_be_written_is_an_error_before_anything_is_measured(
    debiasbench: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "bench", None)  # not to be called
    result = debiasbench(*QUICK, "--json", "nowhere/found.json")
    assert result.exit_code == 2
    assert "--json nowhere/found.json: the folder nowhere does not exist" in result.stderr

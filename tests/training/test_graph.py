"""Steps that are replayed: the same results, in place, and eager steps where that is impossible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from debiasbench.common.randomness import Randomness
from debiasbench.core.objective import CrossEntropy, Objective
from debiasbench.core.settings import Training
from debiasbench.core.stage import Stage, Trained
from debiasbench.sparsity import RigL, Sparsify
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec, training_of
from debiasbench.testing import toy_task
from debiasbench.training.capture import evaluated
from debiasbench.training.execution import Execution
from debiasbench.training.graph import Replays
from debiasbench.training.predict import Predictor
from debiasbench.training.stage_run import StageRun
from debiasbench.training.tape import Recomputed, Tape
from debiasbench.training.trainer import Sequential
from tests.training.stages import CPU, ON_CPU, Flat, assert_equal, fit_toy, make_stage, train

RECORDED = replace(ON_CPU, graph=Tape)
EAGER = replace(ON_CPU, graph=Recomputed)  # with the same optimizer
SETTINGS = Training(epochs=2, batch_size=16, lr=0.05, schedule="cosine", clip_norm=1.0)
SPARSIFIERS = ["static", "set", "rigl", "itop", "snfs", "gmp", "granet", "mest", "srigl"]
# one of each kind; `check_method` compares replayed with computed steps of all methods
METHODS = [
    "erm",
    "groupdro",
    "jtt",
    "lff",
    "dfr",
    "rest",
    "lc",
    "lisa",
    "divdis",
    "masktune",
    "dcwp",
]


class Watching:
    """Trains as `Sequential`, and keeps the stages."""

    def __init__(self, execution: Execution) -> None:
        self._trainer = Sequential(execution, Predictor(execution))
        self.trained: list[Trained] = []

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        done = self._trainer.train(stages)
        self.trained += done
        return done


def fitted(
    execution: Execution, method: str, sparse: str | None = None, **training: Any
) -> tuple[list[dict[str, torch.Tensor]], set[str]]:
    """Return the weights after every stage of a method, and why steps were not replayed."""
    trainer = Watching(execution)
    fit_toy(trainer, execution, replace(SETTINGS, **training), method, sparse)
    ends = [dict(stage.objective.state_dict()) for stage in trainer.trained]
    return ends, {stage.cost.eager for stage in trainer.trained if stage.cost is not None}


@pytest.mark.parametrize(
    ("method", "sparse"),
    [(method, None) for method in METHODS] + [("erm", sparse) for sparse in SPARSIFIERS],
)
def test_replayed_steps_end_with_the_bits_of_computed_steps(
    method: str, sparse: str | None
) -> None:
    replayed, reasons = fitted(RECORDED, method, sparse)
    computed, _ = fitted(EAGER, method, sparse)
    assert reasons == {""}
    for a, b in zip(replayed, computed, strict=True):
        assert_equal(a, b)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adam"},
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"micro_batch": 5},
        {"schedule": "plateau"},
        {"schedule": "step"},
        {"precision": "bf16"},
        {"batch_size": 48},  # the last batch of an epoch is smaller
    ],
    ids=str,
)
def test_all_settings_are_replayed_with_equal_bits(settings: dict[str, Any]) -> None:
    replayed, reasons = fitted(RECORDED, "rest", **settings)
    computed, _ = fitted(EAGER, "rest", **settings)
    assert reasons == {""}
    assert_equal(replayed[0], computed[0])


def replays_of(objective: Objective | None = None, **more: Any) -> tuple[StageRun, list[int]]:
    """Train a stage with graphs; return it, and the numbers of replays after each step."""
    stage = make_stage(objective, **more)
    run = StageRun(stage, RECORDED, RECORDED.numerics())
    counts = []
    with run.random.active(), run.started():
        for _ in run.steps(Tape):
            assert run.computed_by is not None
            counts.append(run.computed_by.replayed)
    return run, counts


def test_a_batch_size_is_replayed_after_three_eager_steps_and_two_sizes_are() -> None:
    training = Training(epochs=8, batch_size=48, lr=0.05)  # 3 batches of 48 and one of 16
    run, counts = replays_of(training=training)
    assert counts[:8] == [
        0,
        0,
        0,
        0,
        0,
        1,
        2,
        2,
    ]  # the first step counts FLOPs; two have 16 samples
    assert run.at.step == 32
    assert counts[-1] == 32 - 1 - 3 - 3


def test_fp16_runs_eagerly() -> None:
    assert not RECORDED.numerics("fp16").graphs


def test_masks_weights_and_optimizer_state_keep_their_addresses() -> None:
    component = Sparsify(RigL(density=0.3, every="7"))
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 2))
    stage = make_stage(
        CrossEntropy(network), training=replace(SETTINGS, epochs=6), components=[component]
    )
    run = StageRun(stage, RECORDED, RECORDED.numerics())
    places = set()
    with run.random.active(), run.started():
        for number in run.steps(Tape):
            assert component.training is not None
            watched = [*run.step.changed(), *component.training.masks.values()]
            if number > 1:  # the first step allocates the momentum
                places.add(tuple(tensor.data_ptr() for tensor in watched))
    assert run.at.step == 60
    assert len(places) == 1
    assert component.training is not None
    assert component.training.updates > 4


class Counting(CrossEntropy):
    """Counts its steps in Python."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.steps = 0

    def forward(self, batch: Any) -> torch.Tensor:
        self.steps += 1
        return super().forward(batch) / self.steps


class Replacing(CrossEntropy):
    """Replaces a buffer instead of changing it."""

    average: torch.Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.register_buffer("average", torch.zeros(()))

    def forward(self, batch: Any) -> torch.Tensor:
        loss = super().forward(batch)
        self.average = 0.9 * self.average + loss.detach()
        return loss / (1 + self.average)


class Reading(CrossEntropy):
    def forward(self, batch: Any) -> torch.Tensor:
        loss = super().forward(batch)
        return loss * (2.0 if loss.item() > 0.5 else 1.0)


class Selecting(CrossEntropy):
    def forward(self, batch: Any) -> torch.Tensor:
        return F.cross_entropy(self.network(batch.x)[batch.y > 0], batch.y[batch.y > 0])


class Drawing(CrossEntropy):
    def forward(self, batch: Any) -> torch.Tensor:
        return super().forward(batch) * np.random.rand()


class Listing(CrossEntropy):
    def forward(self, batch: Any) -> torch.Tensor:
        return super().forward(batch) * (1 + sum(batch.y.tolist()))


class Hidden(CrossEntropy):
    """Depends on state that is not in the objective."""

    calls: ClassVar[list[int]] = []

    def forward(self, batch: Any) -> torch.Tensor:
        Hidden.calls.append(1)
        return super().forward(batch) * len(Hidden.calls)


REFUSED: list[tuple[type[Objective], str]] = [
    (Counting, "Counting changes its attribute 'steps' in every step"),
    (Replacing, "Replacing changes its attribute 'average' in every step: keep it in a buffer"),
    (Reading, "waits for the device"),
    (Selecting, "waits for the device"),
    (Drawing, "draws random numbers from Python or NumPy"),
    (Listing, "waits for the device, in tolist"),
    (Hidden, "operations change from step to step"),
]


@pytest.mark.parametrize(
    ("cls", "reason"), REFUSED, ids=lambda value: getattr(value, "__name__", "")
)
def test_an_objective_that_a_graph_would_freeze_runs_eagerly_and_the_cost_says_why(
    cls: Any, reason: str
) -> None:
    Hidden.calls.clear()
    done = train(cls(Flat()), execution=RECORDED)
    Hidden.calls.clear()
    eager = train(cls(Flat()), execution=EAGER)
    assert done.cost is not None
    assert reason in done.cost.eager
    assert_equal(done.objective.state_dict(), eager.objective.state_dict())


def test_a_branch_that_a_trace_cannot_see_is_found_by_comparing_a_replayed_step() -> None:
    class Late(CrossEntropy):
        """Changes a number of Python outside the steps that are observed."""

        calls: ClassVar[list[int]] = []

        def forward(self, batch: Any) -> torch.Tensor:
            Late.calls.append(1)
            return super().forward(batch) * (3.0 if len(Late.calls) > 4 else 1.0)

    class Frozen(Tape):
        """A graph that repeats what the objective did before."""

        def capture(self, computations: Any) -> None:
            kept, Late.calls = Late.calls, []
            try:
                super().capture(computations)
            finally:
                Late.calls = kept

    done = train(Late(Flat()), execution=replace(ON_CPU, graph=Frozen))
    assert done.cost is not None
    assert "computes something else when it is replayed" in done.cost.eager


def test_an_objective_of_others_that_does_the_same_in_every_step_is_replayed() -> None:
    class Same(CrossEntropy):
        def forward(self, batch: Any) -> torch.Tensor:
            return 2 * super().forward(batch)

    run, counts = replays_of(Same(Flat()))
    assert run.computed_by is not None
    assert run.computed_by.reason == ""
    assert counts[-1] == 16
    eager = train(Same(Flat()), execution=EAGER)
    assert_equal(dict(run.stage.objective.state_dict()), dict(eager.objective.state_dict()))


@pytest.mark.parametrize("floats", [False, True])
def test_streamed_samples_are_copied_to_where_replays_read_them(
    floats: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Same(CrossEntropy):
        """Is observed and compared, so that some steps are computed several times."""

        def forward(self, batch: Any) -> torch.Tensor:
            return super().forward(batch)

    task = replace(toy_task(), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    if floats:
        splits = {name: replace(split, x=split.x / 255) for name, split in task.splits().items()}
        task = replace(task, **splits)  # type: ignore[arg-type]
    computed = train(Same(Flat()), task, execution=EAGER)
    monkeypatch.setattr("debiasbench.training.placed.fits", lambda _x, _device: False)
    replayed = train(Same(Flat()), task, execution=RECORDED)
    assert replayed.cost is not None
    assert replayed.cost.eager == ""
    assert_equal(replayed.objective.state_dict(), computed.objective.state_dict())


def test_a_subclass_does_not_inherit_that_it_is_capturable() -> None:
    with pytest.raises(KeyError):
        vars(Counting)["capturable"]
    assert Counting.capturable  # inherited, and ignored
    _, counts = replays_of(Counting(Flat()))
    assert counts[-1] == 0


def test_dropout_draws_the_same_when_it_is_replayed() -> None:
    def network() -> CrossEntropy:
        torch.manual_seed(0)
        return CrossEntropy(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(192, 2)))

    replayed, computed = (train(network(), execution=e) for e in (RECORDED, EAGER))
    assert replayed.cost is not None
    assert replayed.cost.eager == ""
    assert_equal(replayed.objective.state_dict(), computed.objective.state_dict())


def test_a_stage_resumes_between_replays_bit_for_bit() -> None:
    from debiasbench.training.checkpoint import dumps, loads

    def begun() -> StageRun:
        component = Sparsify(RigL(density=0.3, every="5"))
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(192, 16), nn.Linear(16, 2))
        training = replace(SETTINGS, epochs=4)
        stage = make_stage(CrossEntropy(network), training=training, components=[component])
        return StageRun(stage, RECORDED, RECORDED.numerics())

    whole, first, second = begun(), begun(), begun()
    with whole.started():
        assert sum(1 for _ in whole.steps(Tape)) == 40
    with first.started():
        for number in first.steps(Tape):
            if number == 17:
                break
        saved = loads(dumps(first.state_dict()))
    with second.started():
        second.load_state_dict(saved)
        assert sum(1 for _ in second.steps(Tape)) == 23
    ends = [dict(run.stage.objective.state_dict()) for run in (whole, second)]
    assert_equal(*ends)


class Reads(CrossEntropy):
    """Its predictions cannot be replayed, but its steps can."""

    def predict(self, x: Any) -> torch.Tensor:
        logits = super().predict(x)
        return logits * (2.0 if logits.sum().item() > 1e9 else 1.0)


@pytest.mark.parametrize(
    ("cls", "replayed", "reason"),
    [(CrossEntropy, 6, ""), (Reads, 0, "waits for the device")],
    ids=["replayed", "computed"],
)
def test_the_evaluation_of_each_epoch_is_replayed_where_that_is_possible(
    cls: type[CrossEntropy],
    replayed: int,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Replays] = []

    def kept(*args: Any) -> Replays:
        made.append(evaluated(*args))
        return made[-1]

    monkeypatch.setattr("debiasbench.training.rules.evaluated", kept)
    settings = replace(SETTINGS, epochs=9)
    torch.manual_seed(0)
    first, second = cls(Flat()), cls(Flat())
    graphs = train(first, execution=RECORDED, training=settings)
    assert made[0].replayed == replayed
    assert reason in made[0].reason
    computed = train(second, execution=EAGER, training=settings)
    assert graphs.curves == computed.curves
    assert {k: v.epoch for k, v in graphs.checkpoints.items()} == {
        k: v.epoch for k, v in computed.checkpoints.items()
    }


def test_the_generator_of_a_device_goes_on_where_replays_left_it() -> None:
    class Generator:
        """As a generator of CUDA: its state is shared by reference, and replays advance it."""

        def __init__(self, state: list[int]) -> None:
            self.shared = state

        def graphsafe_get_state(self) -> Generator:
            return Generator(self.shared)

        def graphsafe_set_state(self, other: Generator) -> None:
            self.shared = other.shared

        def get_state(self) -> int:
            return self.shared[0]

        def set_state(self, state: int) -> None:
            self.shared[0] = state

    random: Any = Randomness(0, CPU)
    random._default, random.on_device = Generator([100]), Generator([0])
    for _ in range(3):
        with random.active():
            assert random._default.shared is random.on_device.shared
            random.on_device.shared[0] += 1  # an eager step
        random.on_device.shared[0] += 10  # replays, while other runs are active
        assert random._default.shared == [100]
    assert random.on_device.shared == [33]


def test_augmentation_is_replayed_with_the_seeds_of_each_step() -> None:
    from debiasbench.files.augment import CropFlip, ResizedCropFlip

    for augment in (CropFlip(padding=1), ResizedCropFlip()):
        task = replace(toy_task(), augment=augment)
        replayed, computed = (train(task=task, execution=e) for e in (RECORDED, EAGER))
        assert replayed.cost is not None
        assert replayed.cost.eager == ""
        assert_equal(replayed.objective.state_dict(), computed.objective.state_dict())


def test_the_spec_of_a_run_does_not_depend_on_graphs() -> None:
    assert "graphs" not in vars(training_of(make_spec(Plugins([]), method="erm")))

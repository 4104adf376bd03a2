"""Several runs at once: the records of runs alone, failures that stay their own, resumption."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from debiasbench import Method, Model, hookimpl, option
from debiasbench.common.errors import DebiasbenchError, Interrupted, PluginError
from debiasbench.common.locks import LockHeldError
from debiasbench.common.progress import Progress
from debiasbench.core.objective import CrossEntropy
from debiasbench.records.store import Run
from debiasbench.runs.session import Session
from debiasbench.runs.sweep import Attempt, attempt_together
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.specs.spec import Spec
from debiasbench.training.tape import Tape
from tests import warm
from tests.conftest import ACME, offering
from tests.failing import Diverges, Raises
from tests.runs.resume.stopping import PLUGINS, Stopping, essence, run, spec_of


@dataclass(frozen=True)
class Meddles(Method):
    """Changes global settings before it trains, and draws from global generators."""

    def fit(self, lab: Any) -> Any:
        torch.set_default_dtype(torch.float64)
        before = np.random.rand()
        torch.set_default_dtype(torch.float32)
        torch.backends.mkldnn.deterministic = True
        print("printed by a method")
        first = lab.train(lab.model(), name="first", lr=0.01 + 0.01 * before, select=False)
        assert torch.backends.mkldnn.deterministic
        torch.backends.mkldnn.deterministic = False
        return lab.train(first, name="second", lr=0.01 + 0.01 * np.random.rand())


@dataclass(frozen=True)
class Draws(Method):
    """Its loss draws from all global generators in every step."""

    def fit(self, lab: Any) -> Any:
        class Noisy(CrossEntropy):
            def forward(self, batch: Any) -> torch.Tensor:
                noise = np.random.rand() + float(torch.rand(()))
                return super().forward(batch) * (1 + 0.1 * noise)

        return lab.train(Noisy(lab.model()), name="train")


@dataclass(frozen=True)
class OutOfMemory(Method):
    """Needs too much memory in its fifth step."""

    def fit(self, lab: Any) -> Any:
        class Large(CrossEntropy):
            steps = 0

            def forward(self, batch: Any) -> torch.Tensor:
                self.steps += 1
                if self.steps == 5:
                    raise MemoryError
                return super().forward(batch)

        return lab.train(Large(lab.model()), name="train")


@dataclass(frozen=True)
class Dropping(Model):
    """Has dropout."""

    def build(self, shape: Any) -> nn.Module:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(192, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 2)
        )


class OwnPlugin:
    @hookimpl
    def debiasbench_register_models(self, register: Callable[..., None]) -> None:
        register("dropping", Dropping)


OWN = offering(meddles=Meddles, draws=Draws, diverges=Diverges, raises=Raises, large=OutOfMemory)


@pytest.fixture
def plugins() -> Plugins:
    return Plugins([*PLUGINS, (OWN, ACME), (OwnPlugin(), ACME)])


def run_many(
    plugins: Plugins, specs: Sequence[Spec], results: Path, *, graph: Any = None, **more: Any
) -> list[Run | DebiasbenchError]:
    with Session(plugins, results=results, data_root=results, device="cpu", **more) as session:
        if graph is not None:
            session.execution = replace(session.execution, graph=graph)
        return session.run_many(specs, keep_weights=True)


_alone: dict[str, dict[str, Any]] = {}


def alone(plugins: Plugins, spec: Spec, results: Path) -> dict[str, Any]:
    """Return the essence of the record of a run alone, which is made once for all tests."""
    if spec.id not in _alone:
        done = run(spec, plugins, results=results, data_root=results, device="cpu")
        _alone[spec.id] = essence(done.record, results)
    return _alone[spec.id]


def test_settings_of_the_machine_do_not_hide_the_outcomes_of_runs_at_once(
    plugins: Plugins, tmp_path: Path
) -> None:
    left = {"epochs": 1, "precision": "auto", "micro_batch": "auto"}
    specs = {
        str(seed): make_spec(
            plugins, method="erm", dataset="toy", seed=seed, training=left, precision="auto"
        )
        for seed in (0, 1)
    }
    for expected in ("trained", "done"):
        found: dict[str, Attempt] = {}
        with Session(plugins, results=tmp_path, data_root=tmp_path, device="cpu") as session:
            attempt_together(lambda: session, specs, "failed", found.__setitem__)
        assert {title: one.state for title, one in found.items()} == dict.fromkeys("01", expected)


@pytest.mark.slow
def test_runs_at_once_have_the_records_of_runs_alone_bit_for_bit(
    plugins: Plugins, tmp_path: Path
) -> None:
    methods = ["erm", "rest", "jtt", "dfr", "lff", "groupdro", "meddles", "draws"]
    specs = [spec_of(plugins, method) for method in methods]
    specs += [spec_of(plugins, "upweight", model="dropping", seed=seed) for seed in (0, 1)]
    specs += [spec_of(plugins, "erm", training={"epochs": 2}), spec_of(plugins, "erm", seed=5)]
    places = sys.stdout, sys.stderr, os._exit
    done = run_many(plugins, specs, tmp_path / "together")
    assert places == (sys.stdout, sys.stderr, os._exit)
    for spec, outcome in zip(specs, done, strict=True):
        assert isinstance(outcome, Run), f"{spec.method.name}: {outcome}"
        assert essence(outcome.record, tmp_path / "together") == alone(
            plugins, spec, tmp_path / "alone"
        ), spec.method.name


def test_stages_are_trained_at_once_and_their_costs_are_shares(
    plugins: Plugins, tmp_path: Path
) -> None:
    specs = [spec_of(plugins, "rest", seed=seed) for seed in range(3)]
    for outcome in run_many(plugins, specs, tmp_path):
        assert isinstance(outcome, Run)
        cost = outcome.record.cost
        assert cost is not None
        assert [stage["together"] for stage in cost.stages] == [3]
        assert cost.training_seconds == pytest.approx(cost.stages[0]["seconds"])
        assert cost.wall_seconds >= cost.training_seconds


def test_a_stage_that_several_runs_need_is_trained_once(plugins: Plugins, tmp_path: Path) -> None:
    specs = [spec_of(plugins, method) for method in ("jtt", "dfr", "erm")]
    done = run_many(plugins, specs, tmp_path)
    assert all(isinstance(outcome, Run) for outcome in done)
    reused = [
        stage["reused"]
        for outcome in done
        if isinstance(outcome, Run) and outcome.record.cost is not None
        for stage in outcome.record.cost.stages
    ]
    assert sum(reused) >= 1


def test_a_run_that_fails_leaves_the_others_untouched(plugins: Plugins, tmp_path: Path) -> None:
    names = ["erm", "diverges", "raises", "large", "rest"]
    specs = [spec_of(plugins, name) for name in names]
    erm, diverges, raises, large, rest = run_many(plugins, specs, tmp_path / "together")
    assert isinstance(diverges, Run)
    assert diverges.record.failure is not None
    assert isinstance(raises, PluginError)
    assert "off by one" in str(raises)
    assert isinstance(large, DebiasbenchError)
    assert "--batch-size" in str(large)
    for spec, outcome in ((specs[0], erm), (specs[4], rest)):
        assert isinstance(outcome, Run)
        assert essence(outcome.record, tmp_path / "together") == alone(
            plugins, spec, tmp_path / "alone"
        )


@dataclass(frozen=True)
class Misbehaves(Method):
    """Does something in its second step that would end the process or disturb other runs."""

    how: str = option("exit", "what it does")

    def fit(self, lab: Any) -> Any:
        how = self.how

        class Bad(CrossEntropy):
            steps = 0

            def forward(self, batch: Any) -> torch.Tensor:
                self.steps += 1
                if self.steps == 2:
                    if how == "exit":
                        sys.exit(3)
                    if how == "leave":
                        os._exit(4)
                    if how == "interrupt":
                        raise KeyboardInterrupt
                    torch.set_grad_enabled(False)
                    raise ValueError("gradients are off")
                return super().forward(batch)

        return lab.train(Bad(lab.model()), name="train")


@pytest.mark.parametrize("how", ["exit", "leave", "interrupt", "gradients"])
def test_what_a_loss_does_in_a_step_does_not_reach_the_other_runs(how: str, tmp_path: Path) -> None:
    plugins = Plugins([*PLUGINS, (offering(misbehaves=Misbehaves), ACME)])
    specs = [
        spec_of(plugins, "erm"),
        spec_of(plugins, "misbehaves", method_options={"how": how}),
        spec_of(plugins, "erm", seed=1),
    ]
    first, bad, last = run_many(plugins, specs, tmp_path / "together")
    assert isinstance(bad, PluginError)
    assert "misbehaves" in str(bad)
    assert torch.is_grad_enabled()
    for spec, outcome in ((specs[0], first), (specs[2], last)):
        assert isinstance(outcome, Run)
        assert essence(outcome.record, tmp_path / "together") == alone(
            plugins, spec, tmp_path / "alone"
        )


def test_a_spec_that_cannot_be_resolved_fails_alone(plugins: Plugins, tmp_path: Path) -> None:
    settings = {"epochs": 1, "micro_batch": "auto"}
    specs = [spec_of(plugins, name, training=settings) for name in ("raises", "erm")]
    raises, erm = run_many(plugins, specs, tmp_path)
    assert isinstance(raises, PluginError)
    assert isinstance(erm, Run)


def test_stages_that_another_process_trains_keep_no_other_stage_waiting(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from debiasbench.runs import together

    train, calls = together.train_together, []

    def held(trainings: Any, progress: Any, *, wait: Any = "always", contain: bool) -> Any:
        names = {training.stage.settings.epochs for training in trainings}
        calls.append((names, wait))
        if names == {3} and wait == "never":  # another process trains these
            return [LockHeldError(tmp_path, "another process") for _ in trainings]
        return train(trainings, progress, wait=wait, contain=contain)

    monkeypatch.setattr(together, "train_together", held)
    specs = [spec_of(plugins, "erm", seed=seed) for seed in range(2)]
    specs.append(spec_of(plugins, "rest", training={"epochs": 1}))
    done = run_many(plugins, specs, tmp_path)
    assert all(isinstance(outcome, Run) for outcome in done)
    # the other stage is trained first; then it waits for one of the two at a time
    assert calls[:3] == [({3}, "never"), ({1}, "never"), ({3}, "never")]
    assert calls[3] == ({3}, "always")
    assert len(calls) == 6


def test_finished_runs_are_not_run_again(plugins: Plugins, tmp_path: Path) -> None:
    specs = [spec_of(plugins, "erm", seed=seed) for seed in range(2)]
    run_many(plugins, specs[:1], tmp_path)
    first, second = run_many(plugins, specs, tmp_path)
    assert isinstance(first, Run)
    assert isinstance(second, Run)
    assert (first.fresh, second.fresh) == (False, True)


def test_a_signal_stops_all_runs_with_checkpoints_and_they_resume_bit_for_bit(
    plugins: Plugins, tmp_path: Path
) -> None:
    specs = [spec_of(plugins, "rest", seed=seed) for seed in range(3)]
    specs.append(spec_of(plugins, "upweight", model="dropping"))
    with pytest.raises(Interrupted) as caught:
        run_many(
            plugins, specs, tmp_path / "together", interruptible=True, progress=Stopping(4 * 12)
        )
    assert caught.value.resumable
    done = run_many(plugins, specs, tmp_path / "together")
    for spec, outcome in zip(specs, done, strict=True):
        assert isinstance(outcome, Run)
        assert essence(outcome.record, tmp_path / "together") == alone(
            plugins, spec, tmp_path / "alone"
        )


def test_an_error_outside_of_the_runs_ends_them_and_leaves_no_thread(
    plugins: Plugins, tmp_path: Path
) -> None:
    import threading

    class Failing(Progress):
        def advance(self, count: int = 1) -> None:
            raise KeyboardInterrupt

    before = threading.active_count()
    specs = [spec_of(plugins, "erm", seed=seed) for seed in range(2)]
    with pytest.raises(KeyboardInterrupt):
        run_many(plugins, specs, tmp_path, progress=Failing())
    assert threading.active_count() == before
    assert all(isinstance(outcome, Run) for outcome in run_many(plugins, specs, tmp_path))


def test_a_joint_graph_repeats_the_steps_of_all_runs(plugins: Plugins, tmp_path: Path) -> None:
    specs = [spec_of(plugins, "rest", seed=seed) for seed in range(2)]
    specs += [spec_of(plugins, "lff", model="dropping", seed=7)]
    together = run_many(plugins, specs, tmp_path / "together", graph=Tape)
    for spec, outcome in zip(specs, together, strict=True):
        (single,) = run_many(plugins, [spec], tmp_path / "single", graph=Tape)
        assert isinstance(outcome, Run)
        assert isinstance(single, Run)
        assert outcome.record.cost is not None
        assert {stage["eager"] for stage in outcome.record.cost.stages} <= {
            "",
            *(s["eager"] for s in single.record.cost.stages),  # type: ignore[union-attr]
        }
        assert essence(outcome.record, tmp_path / "together") == essence(
            single.record, tmp_path / "single"
        )


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from debiasbench.common.progress import Progress
from debiasbench.specs.plugins import Plugins
from debiasbench.runs.session import Session
from tests.runs.resume.stopping import PLUGINS, spec_of

class Killing(Progress):
    left = 50
    def advance(self, count=1):
        self.left -= count
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

plugins = Plugins(PLUGINS)
session = Session(plugins, results={results!r}, data_root=".", device="cpu",
                  checkpoint_every=0.0, progress=Killing())
session.run_many([spec_of(plugins, "rest", seed=seed) for seed in range(3)], keep_weights=True)
"""


@pytest.mark.slow
def test_a_killed_process_resumes_all_its_runs(plugins: Plugins, tmp_path: Path) -> None:
    root = str(Path(__file__).parent.parent.parent)
    script = KILLED.format(root=root, results=str(tmp_path / "together"))
    done = warm.run(script)
    assert done.returncode == -signal.SIGKILL
    specs = [spec_of(plugins, "rest", seed=seed) for seed in range(3)]
    steps: list[int] = []

    class Counting(Progress):
        def advance(self, count: int = 1) -> None:
            steps.append(count)

    outcomes = run_many(plugins, specs, tmp_path / "together", progress=Counting())
    assert 0 < sum(steps) < 90
    for spec, outcome in zip(specs, outcomes, strict=True):
        assert isinstance(outcome, Run)
        assert essence(outcome.record, tmp_path / "together") == alone(
            plugins, spec, tmp_path / "alone"
        )


def test_specs_that_are_equal_are_run_once(plugins: Plugins, tmp_path: Path) -> None:
    spec = make_spec(plugins, method="erm", dataset="by-last", model="mlp", training={"epochs": 1})
    first, second = run_many(plugins, [spec, spec], tmp_path)
    assert first is second

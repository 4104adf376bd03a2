"""Forecasts of the time that runs take, from a part of their steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from debiasbench import Method
from debiasbench.cli.suite import report
from debiasbench.measure.forecast import forecast
from debiasbench.measure.pace import STEPS
from debiasbench.measure.rehearsal import StageTime
from debiasbench.measure.stopwatch import WARM_UP
from debiasbench.runs.session import Session
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from tests.conftest import ACME, ToyPlugin, offering
from tests.suites import BASE, specs

pytestmark = pytest.mark.usefixtures("empty_folder")


@dataclass(frozen=True)
class Counting(Method):
    """Two stages that count the steps they really take."""

    def fit(self, lab: Any) -> Any:
        from torch import Tensor

        from debiasbench import Batch
        from debiasbench.core.objective import CrossEntropy

        class Counted(CrossEntropy):
            def forward(self, batch: Batch) -> Tensor:
                taken.append(len(batch))
                return super().forward(batch)

        lab.train(Counted(lab.model()), name="short", steps=35, select=False)
        return lab.train(Counted(lab.model()), name="long", epochs=50, data="train")


taken: list[int] = []


def test_a_forecast_counts_every_stage_whole_and_trains_but_a_part(tmp_path: Path) -> None:
    plugins = Plugins([(ToyPlugin(), ACME), (offering(counting=Counting), ACME)])
    runs = [make_spec(plugins, method="counting", dataset="toy", seed=s) for s in (1, 2)]
    taken.clear()
    (found,) = forecast(Session(plugins, data_root=tmp_path, device="cpu"), runs)
    assert len(taken) == 2 * (WARM_UP + STEPS)
    assert [(s.name, s.steps, s.looks) for s in found.stages] == [
        ("short", 35, 0),
        ("long", 500, 50),
    ]
    assert all(s.step > 0 and s.look > 0 for s in found.stages)
    assert (found.runs, found.spec, found.problem) == (2, runs[0], "")
    assert found.seconds == pytest.approx(found.around + sum(s.seconds for s in found.stages))
    assert found.memory > 0


def test_a_stage_takes_its_steps_and_its_looks_at_validation() -> None:
    assert StageTime("train", steps=1000, looks=10, step=0.25, look=2.0).seconds == 270.0


@dataclass(frozen=True)
class Slow(Method):
    """Waits for a known time in each step and in each validation."""

    def fit(self, lab: Any) -> Any:
        import time

        from torch import Tensor

        from debiasbench import Batch
        from debiasbench.core.objective import CrossEntropy

        class Waiting(CrossEntropy):
            def forward(self, batch: Batch) -> Tensor:
                time.sleep(0.01)
                return super().forward(batch)

            def predict(self, x: Tensor) -> Tensor:
                time.sleep(0.4)
                return super().predict(x)

        return lab.train(Waiting(lab.model()), name="train")


def test_a_look_at_validation_between_steps_is_not_taken_for_a_step(tmp_path: Path) -> None:
    plugins = Plugins([(ToyPlugin(), ACME), (offering(slow=Slow), ACME)])
    spec = make_spec(plugins, method="slow", dataset="toy", training={"epochs": 50})
    (found,) = forecast(Session(plugins, data_root=tmp_path, device="cpu"), [spec])
    (stage,) = found.stages  # 10 steps an epoch: the steps timed go over two ends of epochs
    assert 0.01 <= stage.step < 0.045
    assert 0.4 <= stage.look < 0.8


def test_runs_of_another_size_are_measured_apart_and_others_are_not(plugins: Plugins) -> None:
    text = '[base]\ndataset = "toy"\nmethod = "rest"\n[grid]\ndensity = [0.5, 0.2]\n' + (
        '"train.lr" = [0.1, 0.2]\n"model.hidden" = [[8], [16]]\n"train.batch_size" = [16, 32]\n'
    )
    found = forecast(Session(plugins, data_root=Path(), device="cpu"), specs(text, plugins))
    assert [
        (f.runs, f.spec.model.options["hidden"], f.spec.training["batch_size"]) for f in found
    ] == [(4, [8], 16), (4, [8], 32), (4, [16], 16), (4, [16], 32)]
    assert all(f.differ == ("density", "train.lr") for f in found)
    assert "take the same time for all values of density, train.lr, seed." in report(found)


def test_a_sparse_topology_keeps_the_pace_of_the_whole_training(plugins: Plugins) -> None:
    from debiasbench.sparsity import component

    text = BASE.replace("epochs = 1", "epochs = 100") + 'sparse = "rigl"\n'
    (spec,) = specs(text, plugins)
    totals = []
    make = component.SparseTraining

    def watched(*args: Any, **more: Any) -> Any:
        totals.append(more["total_steps"])
        return make(*args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(component, "SparseTraining", watched)
        forecast(Session(plugins, data_root=Path(), device="cpu"), [spec])
    assert totals == [1000]


def test_what_cannot_be_trained_has_a_reason_instead_of_a_forecast(plugins: Plugins) -> None:
    text = BASE + 'model = "cnn"\nsparse = "rigl"\n"sparse.density" = 1e-6\n'
    (found,) = forecast(Session(plugins, data_root=Path(), device="cpu"), specs(text, plugins))
    assert "smallest feasible density" in found.problem
    assert report([found]).startswith("No forecast for 1 run of erm on toy: ")

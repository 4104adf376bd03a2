"""What MLflow's client reads is what the record says, and nothing is logged unless asked for."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import debiasbench_mlflow
import pytest
from debiasbench_mlflow.tracker import EXPERIMENT, URI, MLflow

from debiasbench import Plugins, Session, TrackedRun
from debiasbench.specs.registry import Origin
from debiasbench.testing import check_plugin

# mlflow and its database library warn of each other
pytestmark = pytest.mark.filterwarnings("default")
library = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed"
)


def test_it_registers_a_tracker() -> None:
    check_plugin(debiasbench_mlflow, trackers=["mlflow"])


def test_it_listens_only_if_a_server_or_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URI, raising=False)
    assert not MLflow.wanted()
    monkeypatch.setenv(URI, "http://localhost:5000")
    assert MLflow.wanted()


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's own client of a new database; the environment leads trackers to it."""
    monkeypatch.setenv(URI, f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv(EXPERIMENT, raising=False)
    monkeypatch.chdir(tmp_path)
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")


def runs(client: Any, experiment: str = "debiasbench") -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id], order_by=["attribute.start_time ASC"]))


@library
def test_what_it_reads_is_what_the_record_says(client: Any, tmp_path: Path) -> None:
    plugins = Plugins([(debiasbench_mlflow, Origin("debiasbench-mlflow", "0"))])
    with Session(plugins, results=tmp_path / "results", device="cpu", progress=None) as session:
        spec = session.spec("jtt", "digits", training={"epochs": 2}, method_options={"upweight": 7})
        run = session.run(spec)
    (found,) = runs(client)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "jtt on digits, seed 0"
    assert found.data.tags["debiasbench.id"] == run.record.id
    assert float(found.data.params["method.upweight"]) == 7
    assert found.data.params["train.epochs"] == "2"
    own = found.info.run_id
    for curves in run.record.curves:
        for name, values in curves.values.items():
            points = client.get_metric_history(own, f"{curves.stage}/{name}")
            assert [(p.step, p.value) for p in points] == list(enumerate(values, 1))
    for rule, outcome in run.record.outcomes.items():
        for name, value in outcome.test.metrics.items():
            (point,) = client.get_metric_history(own, f"test/{rule}/{name}")
            assert (point.step, point.value) == (outcome.epoch or 0, value)
    assert run.record.cost is not None
    assert found.data.metrics["cost/training_flops"] == run.record.cost.training_flops
    stored = client.download_artifacts(own, "record.json", str(tmp_path))
    assert json.loads(Path(stored).read_text()) == json.loads(run.path.read_text())


@library
def test_runs_that_fail_or_are_interrupted_say_so(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EXPERIMENT, "mine")
    part = {"name": "x", "options": {"hidden": [1, 2]}}
    spec = {"dataset": part, "model": part, "method": part, "sparse": None, "seed": 0}
    tracker = MLflow()
    for attempt in ("a", "b"):
        run = TrackedRun("1", attempt, "x on x", {**spec, "training": {}}, "r/x-0-1.json", "")
        tracker.run_started(run)
        tracker.epoch_ended(run, "train", 1, {"loss": float("nan")})
        if attempt == "a":
            tracker.run_interrupted(run)
        else:
            tracker.run_failed(run, "NonFiniteLoss", "The loss became NaN", {"status": "failed"})
    tracker.close()
    interrupted, failed = sorted(
        runs(client, "mine"), key=lambda one: one.info.status, reverse=True
    )
    assert interrupted.info.status == "KILLED"
    assert failed.info.status == "FAILED"
    assert failed.data.tags["debiasbench.failure"] == "NonFiniteLoss: The loss became NaN"
    assert failed.data.params["method.hidden"] == "[1, 2]"

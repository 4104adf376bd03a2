"""What TensorBoard reads is what the record says, and nothing is written unless asked for."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Any

import debiasbench_tensorboard
import pytest
from debiasbench_tensorboard.tracker import FOLDER, TensorBoard, options

from debiasbench import Plugins, Session, TrackedRun
from debiasbench.specs.registry import Origin
from debiasbench.testing import check_plugin

library = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)


def test_it_registers_a_tracker() -> None:
    check_plugin(debiasbench_tensorboard, trackers=["tensorboard"])


def test_it_listens_only_if_a_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    assert not TensorBoard.wanted()
    monkeypatch.setenv(FOLDER, "logs")
    assert TensorBoard.wanted()


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Return what TensorBoard reads: tag -> step -> value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    read = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    read.Reload()
    found: dict[str, dict[int, float]] = {}
    for tag in read.Tags()["tensors"]:
        if read.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            events = read.Tensors(tag)
            found[tag] = {e.step: make_ndarray(e.tensor_proto).item() for e in events}
    return found


def texts(folder: Path) -> str:
    return "".join(file.read_bytes().decode(errors="replace") for file in folder.iterdir())


def same(values: Any) -> Any:
    """TensorBoard stores 32 bits."""
    return pytest.approx(values, rel=1e-7, nan_ok=True)


@library
def test_what_it_reads_is_what_the_record_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "logs"))
    plugins = Plugins([(debiasbench_tensorboard, Origin("debiasbench-tensorboard", "0"))])
    with Session(plugins, results=tmp_path / "results", device="cpu", progress=None) as session:
        spec = session.spec(
            "jtt", "digits", training={"epochs": 2}, method_options={"upweight": 7.0}
        )
        run = session.run(spec)
    (folder,) = (tmp_path / "logs").iterdir()
    assert folder.name == spec.stem
    found = scalars(folder)
    for curves in run.record.curves:
        for name, values in curves.values.items():
            assert list(found.pop(f"{curves.stage}/{name}").values()) == same(values)
    for rule, outcome in run.record.outcomes.items():
        for name, value in outcome.test.metrics.items():
            assert found.pop(f"test/{rule}/{name}") == same({outcome.epoch or 0: value})
    cost = {tag: next(iter(steps.values())) for tag, steps in found.items()}
    assert run.record.cost is not None
    assert cost.pop("cost/training_flops") == same(run.record.cost.training_flops)
    assert all(tag.startswith("cost/") for tag in cost)
    assert "jtt on digits: finished" in texts(folder)
    assert options(asdict(spec))["method.upweight"] == 7.0


@library
def test_every_attempt_has_a_folder_and_says_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    part = {"name": "x", "options": {"hidden": [1, 2]}}
    spec = {"dataset": part, "model": part, "method": part, "sparse": None, "seed": 0}
    tracker = TensorBoard()
    for attempt in ("a", "b"):
        run = TrackedRun("1", attempt, "x on x", {**spec, "training": {}}, "r/x-0-1.json", "")
        tracker.run_started(run)
        tracker.epoch_ended(run, "train", 1, {"loss": float("nan")})
        if attempt == "a":
            tracker.run_interrupted(run)
        else:
            tracker.run_failed(run, "NonFiniteLoss", "The loss became NaN", None)
    tracker.close()
    assert "interrupted" in texts(tmp_path / "x-0-1")
    assert "failed: NonFiniteLoss: The loss became NaN" in texts(tmp_path / "x-0-1-2")

"""Trackers hear what runs do, change nothing, and nothing that they do reaches a run."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from debiasbench import Method, Tracker, make_spec
from debiasbench.common.errors import Interrupted, PluginError
from debiasbench.common.progress import Progress
from debiasbench.records.record import Record
from debiasbench.records.store import Run
from debiasbench.runs.session import Session
from debiasbench.runs.tracking import trackers as module
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.spec import Spec
from tests import warm
from tests.conftest import ACME, ToyPlugin
from tests.conftest import offering as offering_methods
from tests.runs import trackers
from tests.runs.trackers import FILE, heard


def plugins(*classes: type[Tracker], **methods: type[Method]) -> Plugins:
    extra: list[Any] = [(ToyPlugin(), ACME)]
    extra += (
        [(trackers.offering(*classes), replace(ACME, distribution="listen"))] if classes else []
    )
    extra += [(offering_methods(**methods), replace(ACME, distribution="m"))] if methods else []
    found = Plugins(extra)
    assert not found.broken
    return found


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FILE, str(tmp_path / "events"))
    return tmp_path / "events"


def spec_of(loaded: Plugins, method: str = "erm", seed: int = 0, **training: Any) -> Spec:
    return make_spec(loaded, method=method, dataset="toy", seed=seed, training=training)


def runs(loaded: Plugins, results: Path, *specs: Spec, together: bool = False) -> list[Any]:
    with Session(loaded, results=results, progress=None) as session:
        if together:
            return list(session.run_many(specs))
        return [session.run(spec) for spec in specs]


def timeless(record: Record) -> str:
    """Write a record without what differs between any two runs."""
    assert record.cost is not None
    stages = [{**s, "seconds": 0} for s in record.cost.stages]
    cost = replace(
        record.cost,
        wall_seconds=0,
        training_seconds=0,
        images_per_second=0,
        peak_memory_bytes=0,
        stages=stages,
    )
    return repr(replace(record, cost=cost, provenance=replace(record.provenance, started="")))


@pytest.mark.slow
def test_a_tracker_hears_a_run_from_its_beginning_to_its_record(file: Path, tmp_path: Path) -> None:
    loaded = plugins(trackers.Writing)
    spec = spec_of(loaded, "jtt")
    (run,) = runs(loaded, tmp_path / "r", spec)
    events = heard(file)
    assert [e["event"] for e in events] == [
        "run_started",
        *["stage_started", *["epoch_ended"] * len(run.record.curves[0].values["loss"])],
        *["stage_started", *["epoch_ended"] * len(run.record.curves[1].values["loss"])],
        "run_ended",
        "close",
    ]
    started = events[0]["run"]
    assert (started["id"], started["title"]) == (spec.id, "jtt on toy")
    assert started["file"] == str(run.path)
    assert started["spec"]["method"]["name"] == "jtt"
    assert started["spec"]["training"] == spec.training
    assert {json.dumps(e["run"]) for e in events[:-1]} == {json.dumps(started)}
    assert {e["process"] for e in events} & {os.getpid()} == set()
    for curves in run.record.curves:
        told = [e for e in events if e["event"] == "epoch_ended" and e["stage"] == curves.stage]
        assert [e["epoch"] for e in told] == list(range(1, len(told) + 1))
        for name, values in curves.values.items():
            assert [e["values"][name] for e in told] == values
    ended = events[-2]
    assert ended["record"] == json.loads(run.path.read_text())
    assert not ended["torch"]


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True])
def test_results_are_equal_with_and_without_trackers(
    file: Path, tmp_path: Path, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", warm.python())  # of trackers: one of them imports torch
    every = plugins(trackers.Writing, trackers.Meddling, trackers.Raising, trackers.Dying)
    alone = plugins()
    specs = [spec_of(alone, method, seed) for method in ("erm", "rest") for seed in (0, 1)]
    with_all = runs(every, tmp_path / "with", *specs, together=together)
    without = runs(alone, tmp_path / "without", *specs, together=together)
    for one, other in zip(with_all, without, strict=True):
        assert timeless(one.record) == timeless(other.record)
        assert one.record.predictions == other.record.predictions
    events = heard(file)
    assert [e["event"] for e in events].count("run_ended") == 4
    for run in with_all:
        own = [e for e in events if e["run"] is not None and e["run"]["id"] == run.record.id]
        assert own[-1]["record"]["id"] == run.record.id
        told = [e["values"]["loss"] for e in own if e["event"] == "epoch_ended"]
        assert told == [v for curves in run.record.curves for v in curves.values["loss"]]


@pytest.mark.slow
def test_what_a_tracker_raises_is_reported_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded = plugins(trackers.Raising)
    (run, _) = runs(loaded, tmp_path / "r", spec_of(loaded), spec_of(loaded, seed=1))
    assert run.record.status == "ok"
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "printed by a tracker",
        "Warning: tracker 'raising' of listen 1.0 raised SystemExit: 3 (tests/runs/trackers.py, "
        f"line {_line('raise SystemExit(3)')})",
        "printed by a tracker",
    ]


def _line(text: str) -> int:
    lines = Path(trackers.__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


@pytest.mark.slow
def test_a_tracker_that_dies_or_hangs_is_reported_and_holds_nothing_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 3.0)
    monkeypatch.setattr(module, "ANNOUNCE", 1.0)
    loaded = plugins(trackers.Dying, trackers.Hanging)
    specs = [spec_of(loaded, seed=seed) for seed in range(2)]
    begun = time.monotonic()
    with Session(loaded, results=tmp_path / "r", progress=None) as session:
        for spec in specs:
            assert session.run(spec).record.status == "ok"
        session.trackers._listeners[0]._process.wait(60)  # type: ignore[index]
        ended = time.monotonic()
    assert time.monotonic() - ended < 6
    assert ended - begun < 60
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "Warning: tracker 'dying' of listen 1.0 ended with exit code -9, and heard no more of the "
        "runs",
        "Warning: Waiting for tracker 'hanging' of listen 1.0 to finish",
        "Warning: tracker 'hanging' of listen 1.0 did nothing for 3 s, so its process was ended, "
        "and it heard no more of the runs",
    ]


@pytest.mark.slow
def test_a_slow_tracker_hears_everything_while_runs_do_not_wait_for_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 5.0)
    loaded = plugins(trackers.Slow)
    with Session(loaded, results=tmp_path / "r", progress=None) as session:
        session.run(spec_of(loaded, epochs=12))
        assert "run_ended" not in {e["event"] for e in heard(file)}
    events = [e["event"] for e in heard(file)]
    assert events.count("epoch_ended") == 12
    assert events[-1] == "close"


def test_a_tracker_that_cannot_say_whether_it_listens_is_reported(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded = plugins(trackers.Undecided)
    runs(loaded, tmp_path / "r", spec_of(loaded))
    assert "tracker 'undecided' of listen 1.0 does not listen: SystemExit: no" in (
        capfd.readouterr().err
    )


def test_trackers_that_do_not_want_to_listen_cost_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FILE, raising=False)
    monkeypatch.setattr(module, "Listener", None)
    loaded = plugins(trackers.Writing)
    (run,) = runs(loaded, tmp_path / "r", spec_of(loaded))
    assert run.record.status == "ok"


@dataclass(frozen=True)
class Broken(Method):
    """Raises after a stage."""

    def fit(self, lab: Any) -> Any:
        lab.train(lab.model(), name="first")
        raise ValueError("a bug")


@pytest.mark.slow
def test_a_tracker_hears_of_failures_with_and_without_a_record(file: Path, tmp_path: Path) -> None:
    loaded = plugins(trackers.Writing, broken=Broken)
    (run,) = runs(loaded, tmp_path / "r", spec_of(loaded, lr=1e30))
    assert run.record.failure is not None
    with pytest.raises(PluginError):
        runs(loaded, tmp_path / "r", spec_of(loaded, "broken"))
    nan, bug = [e for e in heard(file) if e["event"] == "run_failed"]
    assert nan["kind"] == run.record.failure.kind
    assert nan["record"]["status"] == "failed"
    assert (bug["kind"], bug["record"]) == ("PluginError", None)
    assert "raised ValueError: a bug" in bug["message"]


@pytest.mark.slow
def test_an_attempt_that_continues_another_one_tells_the_whole_story(
    file: Path, tmp_path: Path
) -> None:
    """A run is stopped in its second stage; the next attempt tells all epochs."""
    loaded = plugins(trackers.Writing)
    spec = spec_of(loaded, "jtt", epochs=4)

    class AtEpoch(Progress):
        seen = 0

        def epoch(self, epoch: int, epochs: int, values: Any) -> None:
            self.seen += 1
            if self.seen == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    with (
        Session(loaded, results=tmp_path / "r", progress=AtEpoch(), interruptible=True) as session,
        pytest.raises(Interrupted),
    ):
        session.run(spec)
    assert [e["event"] for e in heard(file)][-2:] == ["run_interrupted", "close"]
    first = heard(file)[0]["run"]["attempt"]
    file.unlink()
    (run,) = runs(loaded, tmp_path / "r", spec)
    events = heard(file)
    assert events[0]["run"]["attempt"] != first
    for curves in run.record.curves:
        told = [e for e in events if e["event"] == "epoch_ended" and e["stage"] == curves.stage]
        assert [e["values"]["loss"] for e in told] == curves.values["loss"]
    assert [e["event"] for e in events].count("stage_started") == 2


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_an_interrupted_run_to_its_trackers(
    file: Path, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "from tests.runs import test_tracking as t, trackers\n"
        "from pathlib import Path\n"
        "loaded = t.plugins(trackers.Writing)\n"
        f"t.runs(loaded, Path({str(tmp_path)!r}, 'r'), t.spec_of(loaded, epochs=100000))\n"
    )
    process = subprocess.Popen([warm.python(), "-c", code])
    wait_for(lambda: "epoch_ended" in {e["event"] for e in heard(file)}, process)
    process.kill()
    process.wait()
    wait_for(lambda: heard(file)[-1]["event"] == "close")
    assert heard(file)[-2]["event"] == "run_interrupted"


def wait_for(condition: Any, process: subprocess.Popen[bytes] | None = None) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        assert process is None or process.poll() is None
        time.sleep(0.05)


@pytest.mark.slow
def test_the_tracker_of_the_page_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "trackers.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "debiasbench_seconds.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    plugin = importlib.import_module("debiasbench_seconds")
    loaded = Plugins([(ToyPlugin(), ACME), (plugin, replace(ACME, distribution="seconds"))])
    (run,) = runs(loaded, tmp_path / "r", spec_of(loaded))
    lines = capfd.readouterr().err.splitlines()
    losses = run.record.curves[0].values["loss"]
    assert lines[:-1] == [
        f"erm on toy: train {n}, loss {loss:.3f}" for n, loss in enumerate(losses, 1)
    ]
    worst = run.record.outcomes["last"].test.metrics["worst_group"]
    assert re.fullmatch(rf"erm on toy: \d+ s, worst group {100 * worst:.1f} %", lines[-1])


def test_a_run_that_has_a_record_is_not_told(file: Path, tmp_path: Path) -> None:
    loaded = plugins(trackers.Writing)
    runs(plugins(), tmp_path / "r", spec_of(loaded))
    (run,) = runs(loaded, tmp_path / "r", spec_of(loaded))
    assert isinstance(run, Run)
    assert not run.fresh
    assert heard(file) == []
    assert math.isfinite(run.record.cost.wall_seconds)  # type: ignore[union-attr]

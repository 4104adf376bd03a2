"""What a node of a Ray cluster does, without Ray: processes, records as bytes, checkpoints."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from debiasbench.common.errors import RecordError, StoreError
from debiasbench.common.locks import locked
from debiasbench.records.record import from_json, to_json
from debiasbench.records.store import Store, read
from debiasbench.runs import workers
from debiasbench.runs.carried import packed, unpacked
from debiasbench.runs.crew import End
from debiasbench.runs.fetched import Fetched, Fetching, put
from debiasbench.runs.jobs import Jobs
from debiasbench.runs.ray_node import Begun, Sent, Slot, Start
from debiasbench.runs.scratch import Scratch
from debiasbench.runs.session_options import SessionOptions
from debiasbench.specs.plugins import version
from debiasbench.specs.spec import Spec

RECORDS = sorted(Path(__file__).parents[2].glob("leaderboard/records/digits/*.json"))

WORKS = """
import os, shutil, sys
sys.path[:] = {path!r}
from pathlib import Path
from debiasbench.common.signals import stopped_by_signals
from debiasbench.runs.jobs import read_jobs
from debiasbench.runs.sweep import Attempt
from debiasbench.runs.workers import Orders

jobs = read_jobs(Path(sys.argv[5]))
with stopped_by_signals() as stop:
    orders = Orders(sys.argv[3], stop)
    for titles in orders:
        for title in titles:
            if title == "dies":
                os.kill(os.getpid(), 9)
            print("training", title, flush=True)
            made = jobs.session.results / Path(title).name
            made.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(title, made)
            orders.report(title, Attempt("trained", made))
"""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for temporary files of a node, whose processes train nothing."""
    folder = tmp_path / "node"
    folder.mkdir()
    monkeypatch.setattr(workers, "START", WORKS)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def begun(results: Path, *, fetch: float = 0.0, token: str = "token") -> tuple[Slot, Begun | str]:
    jobs = Jobs({}, SessionOptions(results.parent, results, device="cpu"))
    start = Start(version("debiasbench"), token, "key", {}, fetch)
    slot = Slot()
    return slot, slot.begin(jobs.to_json(), start)


def everything(slot: Slot) -> Iterator[Sent | End]:
    """Yield what a node sends, each once, and how its process ended."""
    seen, end = 0, None
    while end is None:
        first, sent, end = slot.reports(seen, 5.0)
        assert first <= seen
        yield from sent[seen - first :]
        seen = first + len(sent)
    yield end


@pytest.mark.slow
def test_a_record_comes_back_from_a_node_that_does_not_share_the_folder(
    node: Path, tmp_path: Path
) -> None:
    path = RECORDS[0]
    slot, where = begun(tmp_path / "results")
    assert isinstance(where, Begun)
    assert not where.shared
    slot.order(0, [str(path)])
    slot.order(0, [str(path)])  # a repetition
    slot.order(1, None)
    *sent, end = everything(slot)
    (record,) = [each.record for each in sent if isinstance(each, Sent) and each.record]
    assert record["record"] == path.read_bytes()
    reports = [report for each in sent if isinstance(each, Sent) for report in each.report]
    assert reports[0] is None
    assert [title for title, _ in reports[1:]] == [str(path)]
    assert "".join(each.said for each in sent if isinstance(each, Sent)) == f"training {path}\n"
    assert end == End(0, "its process ended with exit code 0")
    assert not list(node.rglob("*.json"))


@pytest.mark.slow
def test_a_node_uses_the_results_folder_if_it_finds_the_token_in_it(
    node: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "token").write_text("token")
    slot, where = begun(results)
    assert isinstance(where, Begun)
    assert where.shared
    slot.order(0, [str(RECORDS[0])])
    slot.order(1, None)
    *sent, _ = everything(slot)
    assert not any(isinstance(each, Sent) and each.record for each in sent)
    assert (results / RECORDS[0].name).exists()


@pytest.mark.slow
def test_a_node_reports_that_its_process_was_killed(node: Path, tmp_path: Path) -> None:
    slot, _ = begun(tmp_path / "results")
    slot.order(0, ["dies"])
    *_, end = everything(slot)
    assert end == End(-9, "its process was killed by signal 9")


@pytest.mark.slow
def test_a_node_stops_its_process(node: Path, tmp_path: Path) -> None:
    slot, _ = begun(tmp_path / "results")
    while not any(each.report for each in slot.reports(0, 5.0)[1]):
        pass
    slot.stop()
    *_, end = everything(slot)
    assert isinstance(end, End)
    assert end.code in {1, 75, 130}


def test_a_node_with_another_version_says_so(tmp_path: Path) -> None:
    jobs = Jobs({}, SessionOptions(tmp_path, tmp_path)).to_json()
    problem = Slot().begin(jobs, Start("0.0.1", "t", "k", {}))
    assert isinstance(problem, str)
    assert f"has debiasbench {version('debiasbench')}, and this is 0.0.1" in problem


def test_a_record_is_stored_as_it_was_sent(tmp_path: Path) -> None:
    for path in RECORDS[:3]:
        files = packed(path)
        assert "predictions" in files
        store = Store(tmp_path / "results")
        spec = _spec(path)
        stored = unpacked(store, spec, files)
        assert stored.name == f"{spec.stem}.json"
        again = packed(stored)
        sent = from_json(files["record"].decode())
        assert again["record"].decode() == to_json(sent)  # in the schema of today
        assert again["predictions"] == files["predictions"]


def test_the_record_of_a_spec_that_a_node_resolved_is_stored(tmp_path: Path) -> None:
    spec, store = _spec(RECORDS[0]), Store(tmp_path / "results")
    open_spec = replace(spec, training={**spec.training, "precision": "auto"})
    assert unpacked(store, open_spec, packed(RECORDS[0])).exists()
    other = replace(open_spec, training={**open_spec.training, "lr": 0.123})
    with pytest.raises(RecordError, match="instead of"):
        unpacked(store, other, packed(RECORDS[0]))


def test_a_record_that_was_damaged_or_exchanged_on_the_way_is_refused(tmp_path: Path) -> None:
    store, files = Store(tmp_path / "results"), packed(RECORDS[0])
    spec = _spec(RECORDS[0])
    with pytest.raises(RecordError, match="instead of"):
        unpacked(store, replace(spec, seed=spec.seed + 1), files)
    with pytest.raises(RecordError, match="damaged on the way"):
        unpacked(store, spec, {**files, "predictions": files["predictions"][:-1] + b"?"})
    for record in (b"", b"\xff", b"{}", files["record"][:-9]):
        with pytest.raises(RecordError, match="The record that a node sent"):
            unpacked(store, spec, {**files, "record": record})
    assert not store.folder.exists()


def _spec(path: Path) -> Spec:
    return read(path).spec


STAGE = "0123456789abcdef" * 2


def test_checkpoints_go_from_a_node_over_the_driver_to_another_node(tmp_path: Path) -> None:
    first, driver, second = (tmp_path / name for name in ("first", "driver", "second"))
    fetching = Fetching(first, every=0.0)
    with locked(first / ".stages", STAGE):
        running = first / ".stages" / STAGE / "running"
        running.parent.mkdir()
        running.write_bytes(b"step 10")
        time.sleep(1.01)
        files = fetching.due(os.getpid(), finally_=False)
        assert fetching.due(os.getpid(), finally_=False) == {}
    assert set(files) == {f"{STAGE}/running"}
    fetched = Fetched(driver)
    run = "0123456789abcdef"
    fetched.keep([run], files)
    put(second, fetched.of(run))
    there = second / ".stages" / STAGE / "running"
    assert there.read_bytes() == b"step 10"
    assert there.stat().st_mtime == running.stat().st_mtime
    there.write_bytes(b"step 20")
    put(second, files)  # what is newer stays
    assert there.read_bytes() == b"step 20"
    fetched.forget(run)
    assert fetched.of(run) == {}
    assert not (driver / ".stages" / STAGE).exists()


def test_stages_of_runs_that_are_done_are_not_fetched(tmp_path: Path) -> None:
    fetching = Fetching(tmp_path, every=0.0)
    with locked(tmp_path / ".stages", STAGE):
        (tmp_path / ".stages" / STAGE).mkdir()
        (tmp_path / ".stages" / STAGE / "running").write_bytes(b"step 10")
        assert set(fetching.due(os.getpid(), finally_=True)) == {f"{STAGE}/running"}
    (tmp_path / ".stages" / STAGE / "finished").write_bytes(b"done")
    fetching.forget()
    assert fetching.due(os.getpid(), finally_=True) == {}


def test_stages_of_other_processes_are_not_fetched(tmp_path: Path) -> None:
    with locked(tmp_path / ".stages", STAGE):
        (tmp_path / ".stages" / STAGE).mkdir()
        (tmp_path / ".stages" / STAGE / "running").write_bytes(b"step 10")
        assert Fetching(tmp_path, every=0.0).due(os.getpid() + 1, finally_=True) == {}


@pytest.mark.parametrize("title", ["../../evil", f"{STAGE}/../x", f"{STAGE}/running\n", "running"])
def test_files_of_stages_have_the_names_of_stages(tmp_path: Path, title: str) -> None:
    with pytest.raises(StoreError, match="no file of a stage"):
        put(tmp_path, {title: (0.0, b"")})
    assert not list(tmp_path.rglob("*evil*"))


def test_a_scratch_folder_is_removed_by_the_last_process_that_used_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, second = Scratch("key"), Scratch("key")
    assert first.folder == second.folder
    first.leave(empty=True)
    assert second.folder.exists()
    second.leave(empty=True)
    assert not second.folder.exists()
    third = Scratch("key")
    third.leave(empty=False)  # it may hold checkpoints
    assert third.folder.exists()


def test_a_scratch_folder_that_others_could_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"debiasbench-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises(StoreError, match="belongs to another user"):
        Scratch("key")
    assert not list(elsewhere.iterdir())


def test_a_node_imports_neither_ray_nor_torch() -> None:
    code = "import sys, debiasbench.runs.ray_node as _; print({'ray', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

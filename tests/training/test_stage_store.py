"""The store of stages: what is kept, for how long, and at what cost."""

from __future__ import annotations

import errno
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from debiasbench.common.locks import FOLDER as LOCKS
from debiasbench.common.locks import locked
from debiasbench.training import checkpoint, stage_store
from tests import warm


def store(folder: Path, count: int) -> list[Path]:
    """Store finished stages, each last used a second after the one before; return their folders."""
    keep = stage_store.StageStore(folder, identity={}, run="a")
    for i in range(count):
        with keep.open(f"s{i}", {"x": i}, shared=True) as kept:
            kept.finish({"weights": torch.zeros(1000)})
    stages = sorted(stage_store.all_in(folder), key=lambda stage: stage.name)
    for i, stage in enumerate(stages):
        os.utime(stage.folder / stage_store.FINISHED, (1000 + i, 1000 + i))
    return [stage.folder for stage in stages]


def test_finished_stages_that_were_used_longest_ago_go_first(tmp_path: Path) -> None:
    keep = stage_store.StageStore(tmp_path, identity={}, run="a")
    for i in range(4):
        with keep.open(f"s{i}", {"x": i}, shared=True) as kept:
            kept.finish({"weights": torch.zeros(1000)})
    found = stage_store.all_in(tmp_path)
    for age, stage in enumerate(found):
        os.utime(stage.folder / stage_store.FINISHED, (1000 - age, 1000 - age))
    order = [stage.name for stage in stage_store.all_in(tmp_path)]
    size = found[0].bytes
    assert len(stage_store.collect(tmp_path, limit=2 * size + 10)) == 2
    assert [stage.name for stage in stage_store.all_in(tmp_path)] == order[:2]


def test_checkpoints_take_a_small_part_of_the_time(tmp_path: Path) -> None:
    keep = stage_store.StageStore(tmp_path, identity={}, run="a", every=0.0)
    with keep.open("s", {}, shared=True) as kept:
        begun = time.monotonic()
        kept.checkpoint({"x": torch.zeros(100_000)})
        taken = time.monotonic() - begun
        assert not kept.is_due()
        assert kept._next - time.monotonic() > 20 * taken


def test_stages_are_listed_without_reading_their_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store(tmp_path, 1)[0]
    path = folder / stage_store.FINISHED
    path.write_bytes(path.read_bytes()[:-100] + bytes(100))  # a reader of tensors would see it
    monkeypatch.setattr(Path, "read_bytes", None)
    [stage] = stage_store.all_in(tmp_path)
    assert (stage.name, stage.run, stage.bytes) == ("s0", "a", path.stat().st_size)


@pytest.mark.parametrize("content", [b"of another version", checkpoint.dumps({})[:70], b""])
def test_a_stage_that_cannot_be_read_is_named_and_left_out(tmp_path: Path, content: bytes) -> None:
    folders = store(tmp_path, 2)
    (folders[1] / stage_store.FINISHED).write_bytes(content)
    with pytest.warns(UserWarning, match=f"{folders[1].name}/finished: it.*ignored"):
        assert [stage.name for stage in stage_store.all_in(tmp_path)] == ["s0"]


def test_a_stage_that_is_no_regular_file_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / stage_store.FINISHED)
    assert stage_store.all_in(tmp_path) == []


def test_a_stage_that_vanishes_while_it_is_listed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = store(tmp_path, 3)
    outline, entries = checkpoint.outline, stage_store.entries

    def removed_before_reading(path: Path) -> Any:
        shutil.rmtree(folders[1], ignore_errors=True)
        return outline(path)

    def removed_after_listing(folder: Path) -> Any:
        found = entries(folder)
        if folder == folders[2]:
            shutil.rmtree(folder, ignore_errors=True)
        return found

    monkeypatch.setattr(checkpoint, "outline", removed_before_reading)
    assert [stage.name for stage in stage_store.all_in(tmp_path)] == ["s2", "s0"]
    monkeypatch.setattr(stage_store, "entries", removed_after_listing)
    assert list(stage_store.sizes(tmp_path)) == [folders[0]]


def test_a_stage_that_another_process_removed_is_not_counted_as_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders, uses = store(tmp_path, 2), stage_store._uses

    def gone(folder: Path) -> Any:
        found = list(uses(folder))
        shutil.rmtree(folders[0])
        return found

    monkeypatch.setattr(stage_store, "_uses", gone)
    assert stage_store.collect(tmp_path, limit=0) == [folders[1]]


def test_a_stage_in_use_is_not_removed(tmp_path: Path) -> None:
    folders = store(tmp_path, 2)
    with locked(tmp_path, folders[0].name):
        assert stage_store.collect(tmp_path, limit=0) == [folders[1]]
    assert stage_store.collect(tmp_path, limit=0) == [folders[0]]


def test_locks_and_empty_folders_of_killed_processes_do_not_stay(tmp_path: Path) -> None:
    store(tmp_path, 2)
    assert list((tmp_path / LOCKS).iterdir()) == []
    (tmp_path / "empty").mkdir()
    (tmp_path / LOCKS / "old.lock").touch()
    stage_store.tidy(tmp_path)
    assert not (tmp_path / "empty").exists()
    assert list((tmp_path / LOCKS).iterdir()) == []
    assert len(stage_store.all_in(tmp_path)) == 2


def test_what_a_killed_process_wrote_in_part_is_removed_when_the_stage_is_opened(
    tmp_path: Path,
) -> None:
    keep = stage_store.StageStore(tmp_path, identity={}, run="a")
    with keep.open("s", {}, shared=True) as kept:
        kept.checkpoint(1)
    [folder] = stage_store.sizes(tmp_path)
    (folder / ".running.new").write_bytes(b"half")
    with keep.open("s", {}, shared=True) as kept:
        assert kept.running() == 1
    assert [path.name for path in folder.iterdir()] == [stage_store.RUNNING]


def test_a_stage_survives_that_somebody_removes_all_stages_while_it_runs(tmp_path: Path) -> None:
    keep = stage_store.StageStore(tmp_path / "stages", identity={}, run="a")
    with keep.open("s", {}, shared=True) as kept:
        kept.checkpoint(1)
        shutil.rmtree(tmp_path / "stages")
        kept.checkpoint(2)
        assert kept.running() == 2
        kept.finish({"value": 3})
    assert [stage.name for stage in stage_store.all_in(tmp_path / "stages")] == ["s"]


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_result_without_room_keeps_the_checkpoint_and_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = stage_store.StageStore(tmp_path, identity={}, run="a")
    with keep.open("s", {}, shared=True) as kept:
        kept.checkpoint({"step": 3})
        monkeypatch.setattr(stage_store, "write_whole", full)
        with pytest.warns(UserWarning, match=r"'s' could not be stored .*No space.*continues"):
            kept.finish({})
    with keep.open("s", {}, shared=True) as kept:
        assert kept.finished() is None
        assert kept.running() == {"step": 3}


def test_a_result_takes_the_room_of_the_checkpoint_before_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, write = stage_store.StageStore(tmp_path, identity={}, run="a"), stage_store.write_whole

    def small_disk(path: Path, content: bytes) -> None:
        if checkpoint.previous(path.with_name(stage_store.RUNNING)).exists():
            full()
        write(path, content)

    monkeypatch.setattr(stage_store, "write_whole", small_disk)
    with keep.open("s", {}, shared=True) as kept:
        kept.checkpoint(1)
        kept.checkpoint(2)
        kept.finish({"value": 3})
    [stage] = stage_store.all_in(tmp_path)
    assert [path.name for path in stage.folder.iterdir()] == [stage_store.FINISHED]


BUSY = """
import random, sys, time, warnings
from pathlib import Path
from debiasbench.training import stage_store
import torch

folder, kind, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
warnings.simplefilter("error")
draw, end = random.Random(seed), time.monotonic() + 2
while time.monotonic() < end:
    if kind == "write":
        x = draw.randrange(20)
        store = stage_store.StageStore(folder, identity={}, run=str(seed))
        with store.open("s", {"x": x}, shared=True) as kept:
            found = kept.finished()
            assert found is None or found["x"] == x
            if found is None:
                kept.checkpoint({"x": x})
                kept.finish({"x": x, "weights": torch.zeros(100)})
    else:
        stage_store.all_in(folder)
        stage_store.sizes(folder)
        stage_store.collect(folder, limit=draw.choice([0, 5000]))
        stage_store.tidy(folder)
"""


@pytest.mark.slow
def test_processes_that_write_and_remove_stages_at_once_do_not_disturb_each_other(
    tmp_path: Path,
) -> None:
    kinds = ["write", "write", "write", "remove", "remove"]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(warm.Process(BUSY, tmp_path, kind, seed))
            for seed, kind in enumerate(kinds)
        ]
        ended = [(process.wait(), process.stderr) for process in processes]
    assert ended == [(0, "")] * len(kinds)
    assert list((tmp_path / LOCKS).iterdir()) == []

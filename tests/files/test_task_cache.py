"""Cached tasks: equal after a round trip, loaded once, never damaged by a killed process."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from debiasbench.common.errors import DataError
from debiasbench.common.options import option
from debiasbench.core.data import Dataset, Task
from debiasbench.files import task_cache, task_folder
from debiasbench.files.augment import CropFlip
from debiasbench.testing import toy_task
from tests import warm


@dataclass(frozen=True)
class Files(Dataset):
    """A toy task with a source file, which counts how often it is loaded."""

    made: ClassVar[list[int]] = []

    ratio: float = option(0.15, ge=0, le=1)
    flips: bool = False
    augmentation_options: ClassVar[Sequence[str]] = ("flips",)

    def sources(self, root: Path) -> Sequence[Path]:
        return [root / "raw"]

    def augmentation(self) -> CropFlip | None:
        return CropFlip(padding=0) if self.flips else None

    def load(self, root: Path) -> Task:
        self.made.append(1)
        return toy_task(ratio=self.ratio)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Files.made.clear()
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a").write_bytes(b"a")
    return tmp_path


def cached_folder(root: Path) -> Path:
    [task] = task_cache.all_in(root)
    return task.folder


# --- a task as files ----------------------------------------------------------------------------


def test_a_task_is_equal_after_a_round_trip(tmp_path: Path) -> None:
    task = replace(toy_task(), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), metric="worst_group")
    task_folder.save(task, tmp_path)
    again = task_folder.load(tmp_path)
    assert again.fingerprint() == task.fingerprint()
    assert (again.metric, again.select, again.std) == ("worst_group", task.select, task.std)
    for name, split in task.splits().items():
        assert torch.equal(again.splits()[name].x, split.x)


def test_writing_into_a_loaded_task_does_not_change_its_file(tmp_path: Path) -> None:
    task_folder.save(toy_task(), tmp_path)
    task_folder.load(tmp_path).train.x.zero_()
    assert task_folder.load(tmp_path).train.x.any()


def test_equal_tasks_have_equal_digests_and_others_do_not(tmp_path: Path) -> None:
    digests = []
    for i, task in enumerate((toy_task(), toy_task(), toy_task(ratio=0.5))):
        (tmp_path / str(i)).mkdir()
        digests.append(task_folder.save(task, tmp_path / str(i), {"from": i}))
    assert digests[0] == digests[1] != digests[2]


def spoil_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [spoil_bit, shorten, Path.unlink])
@pytest.mark.parametrize("file", ["train-x.npy", "test-bias.npy"])
def test_a_damaged_array_is_found_and_named(
    tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    task_folder.save(toy_task(), tmp_path)
    damage(tmp_path / file)
    with pytest.raises(task_folder.DamagedTask, match=file):
        task_folder.load(tmp_path)


def test_a_changed_description_is_found(tmp_path: Path) -> None:
    task_folder.save(toy_task(), tmp_path)
    facts = json.loads((tmp_path / task_folder.FACTS).read_text())
    (tmp_path / task_folder.FACTS).write_text(json.dumps({**facts, "classes": ["a", "b"]}))
    with pytest.raises(task_folder.DamagedTask, match=r"task\.json was changed"):
        task_folder.load(tmp_path)


# --- the cache ----------------------------------------------------------------------------------


def test_a_task_is_loaded_once_and_then_memory_mapped(root: Path) -> None:
    first, second = (task_cache.load("files", Files(), root) for _ in range(2))
    assert first.fingerprint() == second.fingerprint() == toy_task().fingerprint()
    assert Files.made == [1]


def test_a_data_set_without_sources_is_not_cached(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Plain(Dataset):
        """A data set without files."""

        def load(self, root: Path) -> Task:
            return toy_task()

    task_cache.load("plain", Plain(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def touch(root: Path) -> None:
    os.utime(root / "raw" / "a", ns=(1, 1))


def grow(root: Path) -> None:
    stamp = (root / "raw" / "a").stat()
    (root / "raw" / "a").write_bytes(b"ab")
    os.utime(root / "raw" / "a", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def add(root: Path) -> None:
    (root / "raw" / "b").write_bytes(b"")


@pytest.mark.parametrize("change", [touch, grow, add])
def test_other_source_files_are_another_task(root: Path, change: Callable[[Path], None]) -> None:
    task_cache.load("files", Files(), root)
    change(root)
    task_cache.load("files", Files(), root)
    assert Files.made == [1, 1]


def test_other_options_and_another_revision_are_another_task(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_cache.load("files", Files(), root)
    other = task_cache.load("files", Files(ratio=0.5), root)
    assert other.fingerprint() == toy_task(ratio=0.5).fingerprint()
    monkeypatch.setattr(Files, "revision", 2)
    task_cache.load("files", Files(), root)
    assert Files.made == [1, 1, 1]


def test_augmentation_is_restored_from_the_cache(root: Path) -> None:
    for _ in range(2):
        assert task_cache.load("files", Files(flips=True), root).augment == CropFlip(padding=0)
    assert task_cache.load("files", Files(), root).augment is None
    assert Files.made == [1]  # what is stored does not depend on the augmentation


@pytest.mark.parametrize("damage", [spoil_bit, shorten, Path.unlink])
def test_a_damaged_task_is_loaded_again_with_a_warning(
    root: Path, damage: Callable[[Path], None]
) -> None:
    task_cache.load("files", Files(), root)
    damage(cached_folder(root) / "train-x.npy")
    with pytest.warns(UserWarning, match=r"train-x\.npy .* The data set is decoded again"):
        task = task_cache.load("files", Files(), root)
    assert task.fingerprint() == toy_task().fingerprint()
    assert task_cache.load("files", Files(), root).fingerprint() == task.fingerprint()
    assert Files.made == [1, 1]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_without_a_writable_cache_the_task_is_loaded_with_a_warning(
    root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(task_folder.os, "fsync", full)
    with pytest.warns(UserWarning, match=r"The cache .*cache cannot be written"):
        task = task_cache.load("files", Files(), root)
    assert task.fingerprint() == toy_task().fingerprint()
    assert task_cache.all_in(root) == []


def test_an_error_of_the_data_set_leaves_nothing_in_the_cache(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> Task:
        raise DataError("put the file there")

    monkeypatch.setattr(Files, "load", missing)
    with pytest.raises(DataError, match="put the file there"):
        task_cache.load("files", Files(), root)
    assert task_cache.all_in(root) == []


def test_threads_that_need_the_same_task_load_it_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(self: Files, root: Path) -> Task:
        self.made.append(1)
        time.sleep(0.2)
        return toy_task()

    monkeypatch.setattr(Files, "load", slow)
    with ThreadPoolExecutor(4) as pool:
        tasks = list(pool.map(lambda _: task_cache.load("files", Files(), root), range(4)))
    assert Files.made == [1]
    assert len({task.fingerprint() for task in tasks}) == 1


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from debiasbench.files import task_cache, task_folder
from tests.files.test_task_cache import Files

root, moments, killed = Path(sys.argv[1]), random.Random(0), 0
write = task_folder._write
def slowly(values, path):
    time.sleep(0.05)  # nine arrays take longer than the longest pause
    return write(values, path)
task_folder._write = slowly
for _ in range(10):
    child = os.fork()  # this process has no threads and has already imported torch
    if child == 0:
        task_cache.load("files", Files(), root)
        os._exit(0)
    time.sleep(moments.uniform(0, 0.4))
    os.kill(child, signal.SIGKILL)
    killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    for task in task_cache.all_in(root):  # every cached task is complete
        task_folder.load(task.folder)
print(killed)
"""


@pytest.mark.slow
def test_after_a_kill_at_any_moment_the_next_process_loads_the_same_task(root: Path) -> None:
    done = warm.run(KILLS, root)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 10
    assert task_cache.load("files", Files(), root).fingerprint() == toy_task().fingerprint()
    assert [p.name for p in (root / "cache").iterdir() if p.name.endswith(".new")] == []


def test_a_cached_task_that_another_process_removes_is_left_out(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_cache.load("files", Files(), root)
    [task] = task_cache.all_in(root)
    files, facts = task_cache.files, task_folder.facts

    def removed_while_weighed(path: Path) -> Any:
        for file in files(path):
            file.unlink()
            yield file

    assert task.bytes > 0
    with monkeypatch.context() as patch:
        patch.setattr(task_cache, "files", removed_while_weighed)
        assert [task.bytes for task in task_cache.all_in(root)] == [0]

    def removed_before_reading(folder: Path) -> Any:
        shutil.rmtree(folder)
        return facts(folder)

    monkeypatch.setattr(task_folder, "facts", removed_before_reading)
    assert task_cache.all_in(root) == []


def test_a_cached_task_leaves_no_lock(root: Path) -> None:
    task_cache.load("files", Files(), root)
    [locks] = [path for path in (root / task_cache.FOLDER).iterdir() if path.name[0] == "."]
    assert list(locks.iterdir()) == []

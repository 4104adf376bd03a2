"""Names, replacing, full disks, locks and killed processes."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from debiasbench.common.errors import BusyError, DataError, OptionError
from debiasbench.datasets.imported import Imported
from debiasbench.files import importing, task_folder
from debiasbench.files.importing import BadRows, Source, import_data, place
from tests.files.importing.birds import (
    HEAD,
    bird_rows,
    changed,
    leftovers,
    picture,
    pixels,
    write,
)


@pytest.mark.parametrize("name", ["", "Birds", "../birds", ".birds", "a/b", "birds:", "b" * 101])
def test_an_invalid_name_is_refused(name: str, birds: Source, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="is not a valid name for a data set"):
        import_data(name, birds, tmp_path)


def test_a_name_that_is_taken_is_refused(birds: Source, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Another data set has the name 'digits'"):
        import_data("digits", birds, tmp_path, taken={"digits"})
    import_data("birds", birds, tmp_path)
    with pytest.raises(DataError, match=r"'birds' is already imported.*--replace"):
        import_data("birds", birds, tmp_path)


def test_replacing_keeps_the_old_data_until_the_new_data_are_complete(
    birds: Source, tmp_path: Path
) -> None:
    old = import_data("birds", birds, tmp_path)
    bad = changed(birds, [HEAD, *bird_rows(), ("gone.png", "land", "field")])
    with pytest.raises(BadRows):
        import_data("birds", bad, tmp_path, replace=True)
    assert importing.find(tmp_path, "birds") == old.digest
    new = import_data("birds", bad, tmp_path, replace=True, skip_bad=True)
    assert new.digest == old.digest
    good = changed(birds, [HEAD, *bird_rows()], size=(4, 4))
    other = import_data("birds", good, tmp_path, replace=True)
    assert importing.find(tmp_path, "birds") == other.digest != old.digest
    # mapped data stay valid after the folder is replaced
    assert sorted(pixels(old)) == [5 * i for i in range(40)]
    assert leftovers(tmp_path) == ["birds"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Make writing fail beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_error_and_leaves_nothing(
    birds: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        largest_file(5000),
        pytest.raises(DataError, match=r"Nothing was imported.*free space"),
    ):
        import_data("birds", birds, tmp_path)
    assert leftovers(tmp_path) == []

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(task_folder, "save", full)
        with pytest.raises(DataError, match="No space left on device"):
            import_data("birds", birds, tmp_path)
    assert leftovers(tmp_path) == []
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DataError, match=r"needs 0.1 GB .*, but only 0.0 GB are free"):
        import_data("birds", birds, tmp_path)
    assert leftovers(tmp_path) == []


def test_a_data_root_that_cannot_be_written_is_an_error(birds: Source, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written: Not a directory"):
        import_data("birds", birds, tmp_path / "file")


def test_the_same_name_is_imported_by_one_process_at_a_time(birds: Source, tmp_path: Path) -> None:
    with place.claimed(tmp_path / "imported" / "birds"):
        with pytest.raises(BusyError, match="'birds' is being imported or removed by"):
            import_data("birds", birds, tmp_path)
        import_data("other", birds, tmp_path)


def test_leftovers_of_other_names_are_removed_too(birds: Source, tmp_path: Path) -> None:
    done = import_data("old", birds, tmp_path)
    folder = tmp_path / "imported"
    (folder / ".gone.new").mkdir()
    (folder / ".gone.new" / "train-x.npy").write_text("half")
    (folder / "old").rename(folder / ".old.old")  # killed while replacing
    (folder / ".old.new").mkdir()
    assert importing.find(tmp_path, "old") == done.digest
    assert importing.names(tmp_path) == ["old"]
    assert len(Imported(name="old").load(tmp_path).train) == 26
    with place.claimed(folder / "busy"):
        (folder / ".busy.new").mkdir()
        import_data("birds", birds, tmp_path)
        assert leftovers(tmp_path) == [".busy.new", "birds", "old"]
    assert importing.names(tmp_path) == ["birds", "old"]
    assert importing.find(tmp_path, "old") == done.digest


KILLED = """
import json, os, random, shutil, signal, sys, time
from dataclasses import replace
from pathlib import Path

import torch
from debiasbench.files import images, importing, task_folder  # before any fork
from debiasbench.files.importing import Source, import_data
from debiasbench.datasets.imported import Imported

torch.set_num_threads(1)
os.fsync = lambda _: None  # matters for power failures, not for kills
folder, root = Path(sys.argv[1]), Path(sys.argv[2])
source = Source(folder / "birds", folder / "birds.csv", "species", ("place",))
small = replace(source, table=folder / "few.csv")


def forked(work):
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def finished(work):
    assert os.waitpid(forked(work), 0)[1] == 0


def dies_at(step):
    # kill this process just before the step-th change below the data root; two files are enough
    count = 0

    def hook(event, args):
        nonlocal count
        path = str(args[0]) if args else ""
        folder = event in {"os.mkdir", "os.rename", "os.rmdir"} and "/imported" in path
        file = event in {"open", "os.remove"} and path.endswith(("train-x.npy", "task.json"))
        if folder or file:
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def tidy(name):
    return sorted(p.name for p in (root / "imported").iterdir()) == [".locks", name]


def clear():
    shutil.rmtree(root / "imported" / "birds")


begun = time.monotonic()
finished(lambda: import_data("birds", source, root))
span = time.monotonic() - begun
undisturbed = importing.find(root, "birds")
clear()

# at random moments
rng = random.Random(0)
interrupted = 0
for _ in range(4):
    child = forked(lambda: import_data("birds", source, root))
    time.sleep(rng.uniform(0.05, 0.95) * span)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if importing.find(root, "birds") is None:
        interrupted += 1
        finished(lambda: import_data("birds", source, root))
    finished(lambda: Imported(name="birds", digest=undisturbed).load(root))
    assert tidy("birds"), os.listdir(root / "imported")
    clear()

# at each step of replacing
finished(lambda: import_data("birds", small, root))
old = importing.find(root, "birds")
step, seen = 0, []
bright = replace(small, size=(4, 4))
while True:
    step += 1

    def work():
        dies_at(step)
        import_data("birds", bright, root, replace=True)

    survived = os.waitpid(forked(work), 0)[1] == 0
    digest = importing.find(root, "birds")
    seen.append(digest)

    def again():
        Imported(name="birds", digest=digest).load(root)
        import_data("birds", small, root, replace=True)

    finished(again)
    assert importing.find(root, "birds") == old
    assert tidy("birds"), os.listdir(root / "imported")
    if survived:
        break
print(json.dumps({"interrupted": interrupted, "old": old, "seen": seen}))
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_does_not_disturb_the_next_import(
    tmp_path: Path,
) -> None:
    rows = bird_rows(300)
    for i, (file, *_) in enumerate(rows):
        picture(tmp_path / "birds" / file, (i % 256, i // 256, 7), (64, 64))
    write(tmp_path / "birds.csv", [HEAD, *rows])
    write(tmp_path / "few.csv", [HEAD, *rows[:20]])
    words = [sys.executable, "-c", KILLED, str(tmp_path), str(tmp_path / "root")]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["interrupted"] > 0
    seen = shown["seen"]
    assert len(seen) > 10  # steps
    # the old data until some step, then the new data, and always one of them
    assert seen[0] == shown["old"] != seen[-1]
    change = seen.index(seen[-1])
    assert set(seen[:change]) == {shown["old"]}
    assert set(seen[change:]) == {seen[-1]}

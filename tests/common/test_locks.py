"""Locks: exclusive on every file system, free when their process is gone, and without leftovers."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from debiasbench.common import claims, locks
from debiasbench.common.claims import Claim
from debiasbench.common.errors import Interrupted
from debiasbench.common.locks import LockHeldError, locked, remove_leftovers
from debiasbench.common.signals import stopped_by_signals


def unsupported(*_: object) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def without_effect(*_: object) -> None:
    """Succeed whoever holds the lock, as on some network file systems."""


@pytest.fixture(params=[fcntl.flock, unsupported, without_effect], ids=lambda f: f.__name__)
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with file locks, and folders in which they fail; the latter was said already."""
    monkeypatch.setattr(fcntl, "flock", request.param)
    monkeypatch.setattr(locks, "POLL", (0.001, 0.01))
    with warnings.catch_warnings(action="ignore"), locked(tmp_path, "first"):
        pass
    return tmp_path


@contextmanager
def held_elsewhere(hold: Callable[[], object]) -> Iterator[threading.Event]:
    """Let another thread hold a lock until the event is set or the context ends."""
    held, end = threading.Event(), threading.Event()

    def work() -> None:
        with hold():  # type: ignore[attr-defined]
            held.set()
            end.wait()

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            assert held.wait(10)
            yield end
        finally:
            end.set()
        working.result()


def files(folder: Path) -> list[str]:
    names = (path.name for path in (folder / locks.FOLDER).iterdir())
    return sorted(name for name in names if name != locks.WITHOUT_FILE_LOCKS)


def test_one_of_many_holds_a_lock_at_a_time_and_no_file_stays(folder: Path) -> None:
    inside: list[int] = []

    def count(number: int) -> None:
        for _ in range(10):
            with locked(folder, "a"):
                inside.append(number)
                time.sleep(0.0005)
                assert inside == [number]
                inside.remove(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert files(folder) == []


def test_a_lock_that_is_held_is_refused_with_the_name_of_its_holder(folder: Path) -> None:
    with held_elsewhere(lambda: locked(folder, "a")):
        for wait in ("never", "if void"):
            with (
                pytest.raises(LockHeldError, match=rf"process {os.getpid()} on \S+ holds .*a\."),
                locked(folder, "a", wait=wait),
            ):
                pass
        with locked(folder, "b", wait="never"):
            pass
    with locked(folder, "a", wait="never"):
        pass


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({"SLURM_JOB_ID": "12"}, "12"),
        ({"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}, "7_3"),
    ],
)
def test_a_holder_in_a_job_of_slurm_is_named_with_its_job(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], job: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    said = rf"process {os.getpid()} on \S+ \(Slurm job {job}\) holds"
    with (
        held_elsewhere(lambda: locked(folder, "a")),
        pytest.raises(LockHeldError, match=said),
        locked(folder, "a", wait="never"),
    ):
        pass
    assert files(folder) == []


def test_a_wait_is_announced_with_the_holder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "ANNOUNCE", 0.05)
    with held_elsewhere(lambda: locked(folder, "a")) as end:
        threading.Timer(0.3, end.set).start()
        with (
            pytest.warns(UserWarning, match=f"^Waiting for stage 'x': process {os.getpid()} on"),
            locked(folder, "a", purpose="stage 'x'"),
        ):
            pass


def test_a_wait_ends_when_a_stop_is_requested(folder: Path) -> None:
    attempts = 0

    def check() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 3:
            raise InterruptedError

    with (
        held_elsewhere(lambda: locked(folder, "a")),
        pytest.raises(InterruptedError),
        locked(folder, "a", check=check),
    ):
        pass


def test_a_signal_ends_a_wait(folder: Path) -> None:
    with held_elsewhere(lambda: locked(folder, "a")), stopped_by_signals():
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Interrupted), locked(folder, "a"):
            pass


@pytest.mark.parametrize(
    ("flock", "reason"),
    [
        (unsupported, "Function not implemented"),
        (without_effect, "a locked file can be locked once more"),
    ],
)
def test_a_folder_without_file_locks_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: Callable[..., None], reason: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        with pytest.warns(UserWarning, match=reason), locked(tmp_path, "a"):
            assert files(tmp_path) == ["a.claim"]
        with locked(tmp_path, "b"):
            assert files(tmp_path) == ["b.claim"]
    with locked(tmp_path, "a"):  # another process, which could lock, must do as the others
        assert files(tmp_path) == ["a.claim"]


def test_an_error_of_the_disk_is_not_taken_for_missing_file_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(OSError, match="Input/output"), locked(tmp_path, "a"):
        pass
    assert not (tmp_path / locks.FOLDER / locks.WITHOUT_FILE_LOCKS).exists()


def test_locks_that_killed_processes_left_are_removed_but_not_those_in_use(tmp_path: Path) -> None:
    (tmp_path / locks.FOLDER).mkdir()
    for number in range(3):
        (tmp_path / locks.FOLDER / f"{number}.lock").touch()
    with locked(tmp_path, "1"):
        remove_leftovers(tmp_path)
        assert files(tmp_path) == ["1.lock"]


HOLD = """
import sys
from pathlib import Path
from debiasbench.common.claims import Claim

claim = Claim(Path(sys.argv[1]))
assert claim.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_the_claim_of_a_killed_process_of_this_machine_is_void_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.claim"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        mine = Claim(path)
        assert not mine.acquire()
        process.kill()
        process.wait()
        assert mine.acquire()
        mine.release()
    assert not path.exists()


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (claims, locks):
        monkeypatch.setattr(module, "LEASE", 1.0)
        monkeypatch.setattr(module, "BEAT", 0.05)
    monkeypatch.setattr(locks, "POLL", (0.01, 0.05))


def claim_of_a_dead_machine(folder: Path) -> Path:
    """Write a claim whose machine failed a while ago."""
    (folder / locks.FOLDER).mkdir()
    (folder / locks.FOLDER / locks.WITHOUT_FILE_LOCKS).touch()
    path = folder / locks.FOLDER / "a.claim"
    claim = Claim(path)
    assert claim.acquire()
    text = path.read_text()
    claim.release()
    lines = ["host=node7" if line.startswith("host=") else line for line in text.splitlines()]
    path.write_text("\n".join(lines) + "\n")
    os.utime(path, (time.time() - 5, time.time() - 5))
    return path


@pytest.mark.usefixtures("short_lease")
@pytest.mark.parametrize("wait", ["if void", "always"])
def test_the_claim_of_a_dead_machine_is_void_when_nobody_renews_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: locks.Wait
) -> None:
    monkeypatch.setattr(locks, "ANNOUNCE", 0.0)
    path = claim_of_a_dead_machine(tmp_path)
    begun = time.monotonic()
    with (
        pytest.warns(UserWarning, match=r"^Waiting for a: process \d+ on node7 holds"),
        locked(tmp_path, "a", wait=wait),
    ):
        assert "host=node7" not in path.read_text()
    assert time.monotonic() - begun >= 1.0
    assert files(tmp_path) == []


@pytest.mark.usefixtures("short_lease")
def test_a_claim_of_another_machine_that_looks_fresh_is_respected_at_once(tmp_path: Path) -> None:
    path = claim_of_a_dead_machine(tmp_path)
    path.touch()
    with (
        pytest.raises(LockHeldError, match="on node7 holds"),
        locked(tmp_path, "a", wait="if void"),
    ):
        pass


@pytest.mark.usefixtures("short_lease")
@pytest.mark.parametrize("job", ["", "12"])
def test_a_claim_that_is_renewed_is_not_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", job)
    first, second = Claim(tmp_path / "a"), Claim(tmp_path / "a")
    assert first.acquire()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        assert not second.acquire()
        time.sleep(0.05)
    first.release()
    assert second.acquire()
    second.release()


TAKE_TURNS = """
import sys, time, warnings
from pathlib import Path
from debiasbench.common import locks

folder, number = Path(sys.argv[1]), sys.argv[2]
locks.POLL = (0.001, 0.01)
if sys.argv[3] == "without effect":
    locks.fcntl.flock = lambda *_: None
warnings.simplefilter("ignore")
for turn in range(20):
    with locks.locked(folder, "a"):
        inside = folder / "inside"
        inside.open("x").write(number)  # fails if the other process is inside
        time.sleep(0.002)
        inside.unlink()
        with (folder / "log").open("a") as log:
            log.write(number)
"""


@pytest.mark.slow
@pytest.mark.parametrize("flocks", [("works", "works"), ("without effect", "without effect")])
def test_two_processes_exclude_each_other_with_and_without_file_locks(
    tmp_path: Path, flocks: tuple[str, str]
) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", TAKE_TURNS, str(tmp_path), str(number), flock])
        for number, flock in enumerate(flocks)
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    log = (tmp_path / "log").read_text()
    assert (log.count("0"), log.count("1")) == (20, 20)
    assert files(tmp_path) == []
    assert (tmp_path / locks.FOLDER / locks.WITHOUT_FILE_LOCKS).exists() == ("works" not in flocks)


@pytest.mark.slow
def test_the_run_of_a_killed_process_is_free_at_once_without_file_locks(tmp_path: Path) -> None:
    hold = """
import sys, warnings
from pathlib import Path
from debiasbench.common import locks

locks.fcntl.flock = lambda *_: None
warnings.simplefilter("ignore")
with locks.locked(Path(sys.argv[1]), "a"):
    print("held", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LockHeldError), locked(tmp_path, "a", wait="never"):
            pass
        process.kill()
        process.wait()
        with locked(tmp_path, "a", wait="never"):
            assert files(tmp_path) == ["a.claim"]

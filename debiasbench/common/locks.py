"""`locked`: a lock that processes share, on one machine or on several."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import time
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal, Protocol

from debiasbench.common import signals
from debiasbench.common.claims import BEAT, LEASE, Claim, slurm_job
from debiasbench.common.folders import entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FOLDER = ".locks"
POLL = (0.05, 1.0)  # shortest and longest time between two attempts, in seconds
ANNOUNCE = 10.0  # seconds after which a wait is announced
WITHOUT_FILE_LOCKS = "without-file-locks"  # marks a folder in which all processes use claims

Wait = Literal["never", "if void", "always"]


class LockHeldError(Exception):
    """Another process holds a lock; `holder` describes the process."""

    def __init__(self, path: Path, holder: str) -> None:
        self.holder = holder
        super().__init__(f"{holder} holds {path}")


class _Lock(Protocol):
    path: Path

    def acquire(self) -> bool: ...
    def release(self) -> None: ...
    def seems_void(self) -> bool: ...


@contextmanager
def locked(
    folder: Path,
    name: str,
    *,
    wait: Wait = "always",
    purpose: str = "",
    check: Callable[[], object] = signals.check,
) -> Iterator[None]:
    """Hold the lock `name` of a folder. Its file is in `.locks` of the folder while it is held.

    The system releases the lock of a process that dies. Where file locks do not work, such as on
    sshfs, a claim file is used instead.

    `wait`: "never" and "if void" raise `LockHeldError` if another process holds the lock; "if void"
    first watches a claim that was not renewed, for at most `LEASE` seconds. "always" waits, and
    says so after `ANNOUNCE` seconds: `purpose` follows "Waiting for". `check` is called before each
    attempt, and can raise to end the wait; by default, signals end it with `Interrupted`. Raises
    `OSError` if the folder cannot be written.
    """
    lock = _acquired(folder / FOLDER, name, wait, purpose or name, check)
    try:
        yield
    finally:
        lock.release()


def remove_leftovers(folder: Path) -> None:
    """Remove the lock files of a folder that no process holds; killed processes leave them."""
    for entry in entries(folder / FOLDER):
        name, dot, ending = entry.name.rpartition(".")
        if dot and ending in {"lock", "claim"}:
            with suppress(LockHeldError, OSError), locked(folder, name, wait="never"):
                pass


def _acquired(
    locks: Path, name: str, wait: Wait, purpose: str, check: Callable[[], object]
) -> _Lock:
    """Acquire and return a file lock, or a claim in a folder where file locks do not work."""
    # of all processes that share the folder, one may be unable to lock
    if not (locks / WITHOUT_FILE_LOCKS).exists():
        lock = _FileLock(locks / f"{name}.lock")
        try:
            _acquire(lock, wait, purpose, check)
        except _NoFileLocks as error:
            lock.path.unlink(missing_ok=True)
            _mark(locks, error)
        else:
            return lock
    claim = Claim(locks / f"{name}.claim")
    _acquire(claim, wait, purpose, check)
    return claim


def _acquire(lock: _Lock, wait: Wait, purpose: str, check: Callable[[], object]) -> None:
    begun, pause, announced = time.monotonic(), POLL[0], False
    while not _attempt(lock, check):
        waited = time.monotonic() - begun
        watching = wait == "if void" and lock.seems_void() and waited < LEASE + BEAT
        if wait != "always" and not watching:
            raise LockHeldError(lock.path, _holder(lock.path))
        if not announced and (watching or waited >= ANNOUNCE):
            announced = True
            reason = f" and did not renew it; it is void after {LEASE:.0f} s" if watching else ""
            warnings.warn(
                f"Waiting for {purpose}: {_holder(lock.path)} holds {lock.path}{reason}",
                stacklevel=6,
            )
        time.sleep(pause)
        pause = min(1.2 * pause, POLL[1])


def _attempt(lock: _Lock, check: Callable[[], object]) -> bool:
    check()
    return lock.acquire()


class _NoFileLocks(Exception):  # noqa: N818 - it never leaves this file
    """File locks do not work in a folder; the message says why."""


# ESTALE: the holder, on another machine, has just removed the file from NFS
_HELD = (errno.EAGAIN, errno.EACCES, errno.ESTALE)
_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)

_tested: set[Path] = set()  # folders in which file locks work; each process tests them once


class _FileLock:
    """A lock of the system on a file, which the holder removes when it releases the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = -1

    def acquire(self) -> bool:
        """Try once to get the lock; raises `OSError` and `_NoFileLocks`."""
        while True:
            handle = _opened(self.path)
            try:
                if not _flock(handle):
                    os.close(handle)
                    return False
                if _is_at(self.path, handle):
                    _test(self.path)
                    _describe(handle)
                    self._handle = handle
                    return True
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # the last holder removed this file, so that others use a new one

    def release(self) -> None:
        with suppress(OSError):
            if _is_at(self.path, self._handle):
                self.path.unlink()
        os.close(self._handle)

    def seems_void(self) -> bool:
        return False  # the system releases locks of dead processes


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o666)


def _flock(handle: int) -> bool:
    """Try once to lock an open file; raises `OSError` and `_NoFileLocks`."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno in _UNSUPPORTED:
            raise _NoFileLocks(error.strerror or str(error)) from error
        raise
    return True


def _test(path: Path) -> None:
    """Raise `_NoFileLocks` if a locked file can be locked once more."""
    folder = path.parent.absolute()
    if folder in _tested:
        return
    second = _opened(path)
    try:
        if _flock(second):
            raise _NoFileLocks("a locked file can be locked once more")
    finally:
        os.close(second)
    _tested.add(folder)


def _is_at(path: Path, handle: int) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _describe(handle: int) -> None:
    """Write into a lock file who holds it, in the format of claims; a full disk is no problem."""
    job = f"job={job}\n" if (job := slurm_job()) else ""
    text = f"pid={os.getpid()}\nhost={socket.gethostname()}\n{job}"
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)


def _holder(path: Path) -> str:
    """Describe the process that holds a lock or claim, from its file."""
    try:
        text = path.read_bytes()[:1024].decode("ascii", "replace")
    except OSError:
        text = ""
    process = re.search(r"^pid=(\d{1,10})$", text, re.MULTILINE)
    host = re.search(r"^host=([\w.-]{1,253})", text, re.MULTILINE)
    if process is None or host is None:
        return "another process"
    job = re.search(r"^job=([\d_]{1,40})$", text, re.MULTILINE)
    return f"process {process[1]} on {host[1]}" + (f" (Slurm job {job[1]})" if job else "")


def _mark(locks: Path, problem: _NoFileLocks) -> None:
    """Let all processes use claims in a folder from now on."""
    (locks / WITHOUT_FILE_LOCKS).touch()
    warnings.warn(
        f"File locks do not work in {locks} ({problem}), so claim files are used. A claim is "
        f"renewed every {BEAT:.0f} s; if its computer fails, it is void after {LEASE:.0f} s",
        stacklevel=6,
    )

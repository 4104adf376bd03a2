"""Stages on disk: a running one goes on where it was, a finished one is not trained again."""

from __future__ import annotations

import shutil
import time
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from debiasbench.common.canonical import digest
from debiasbench.common.errors import StoreError
from debiasbench.training import checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FOLDER = ".stages"
RUNNING, FINISHED = "running", "finished"
LIMIT = 4_000_000_000  # bytes of finished stages that are kept, unless one says otherwise
SHARE = 0.02  # of the time, at most, goes into checkpoints


@dataclass(frozen=True)
class Finished:
    """A finished stage as `debiasbench cache ls` lists it."""

    folder: Path
    name: str
    run: str  # id of the spec that trained it
    bytes: int
    used: float  # seconds since the epoch


class Stages:
    """Where the stages of runs lie: a folder that any number of processes may share.

    `identity`: what all stages of the run depend on, such as the data's fingerprint; `run`: the
    spec's id; `own`: what else stages depend on that no other run could use. `every`: seconds
    between checkpoints, more where writing one takes more than a fiftieth of that; `reuse`:
    whether what is there is taken up.
    """

    def __init__(
        self,
        folder: Path,
        *,
        identity: Mapping[str, object],
        run: str,
        own: str = "",
        every: float = 60.0,
        reuse: bool = True,
    ) -> None:
        self.folder = folder
        self.run, self.every, self.reuse = run, every, reuse
        self._identity, self._private = dict(identity), [run, own]
        self._own: list[Path] = []  # of no use to other runs

    @contextmanager
    def open(self, name: str, what: Mapping[str, object], *, shared: bool) -> Iterator[Kept]:
        """Hold a stage while it is trained; another process that needs the same one waits.

        `what`: everything else that decides the stage, as JSON. `shared`: whether it decides it
        for other runs too. Raises `StoreError` if the folder cannot be written.
        """
        key = [self._identity, what, None if shared else [*self._private, name]]
        folder = self.folder / digest(key)[:32]
        try:
            lock = _lock(folder)
            lock.acquire()
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        try:
            if not shared:
                self._own.append(folder)
            yield Kept(folder, name, self)
        finally:
            with suppress(OSError):
                folder.rmdir()  # if nothing came of it
            lock.release()

    def done(self) -> None:
        """Drop what only this run could use: its record is written."""
        for folder in self._own:
            shutil.rmtree(folder, ignore_errors=True)
        self._own = []


class Kept:
    """What lies on disk of one stage; made by `Stages.open`."""

    def __init__(self, folder: Path, name: str, stages: Stages) -> None:
        self._folder, self._name, self._stages = folder, name, stages
        self._next = time.monotonic() + stages.every

    def finished(self) -> Mapping[str, Any] | None:
        """Return what `finish` was given, with `run`, the id of the spec that trained it."""
        path = self._folder / FINISHED
        if not path.exists():
            return None
        if not self._stages.reuse:
            path.unlink()
            return None
        found = _read(path)
        if found is not None:
            path.touch()  # so that what is used stays longest
        return found

    def running(self) -> Any | None:
        """Return the last checkpoint that is whole, None if there is none."""
        if not self._stages.reuse:
            self._forget()
            return None
        for path in (self._folder / RUNNING, checkpoint.previous(self._folder / RUNNING)):
            if path.exists() and (found := _read(path)) is not None:
                return found
        return None

    def is_due(self) -> bool:
        """Say whether it is time for a checkpoint."""
        return time.monotonic() >= self._next

    def checkpoint(self, state: object) -> None:
        """Write a checkpoint; the one before stays until it is whole. Raises `StoreError`."""
        begun = time.monotonic()
        self._write(RUNNING, state)
        taken = time.monotonic() - begun
        self._next = time.monotonic() + max(self._stages.every, taken / SHARE)

    def finish(self, state: Mapping[str, object]) -> None:
        """Write what the stage came to; its checkpoints go. Raises `StoreError`."""
        self._write(FINISHED, {**state, "run": self._stages.run, "name": self._name})
        self._forget()

    def _write(self, name: str, state: object) -> None:
        try:
            checkpoint.save(self._folder / name, state)
        except OSError as error:
            raise _unwritable(self._folder, error) from error

    def _forget(self) -> None:
        for path in (self._folder / RUNNING, checkpoint.previous(self._folder / RUNNING)):
            path.unlink(missing_ok=True)


def all_in(folder: Path) -> list[Finished]:
    """List the finished stages in a folder, those used last first; damaged ones are left out."""
    found = []
    for path in folder.glob(f"*/{FINISHED}"):
        state = _read(path)
        if state is not None:
            stat = path.stat()
            found.append(
                Finished(path.parent, state["name"], state["run"], stat.st_size, stat.st_mtime)
            )
    return sorted(found, key=lambda stage: -stage.used)


def weight(folder: Path) -> int:
    """Return the bytes of the stages in a folder, finished or not, without reading them."""
    return sum(size for _, size, _ in _weighed(folder))


def collect(folder: Path, limit: int = LIMIT) -> list[Path]:
    """Remove the stages that were used longest ago until `limit` bytes are left.

    Checkpoints of stages that failed, or that nobody went on with, count too; those that a process
    holds stay. Returns the folders that were removed.
    """
    removed, kept = [], 0
    for _, size, stage in sorted(_weighed(folder), reverse=True):
        kept += size
        if kept <= limit:
            continue
        try:
            with _lock(stage).acquire(timeout=0):
                shutil.rmtree(stage, ignore_errors=True)
                removed.append(stage)
        except Timeout:
            continue
    return removed


def _weighed(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield when each stage was last used or written, its bytes and its folder."""
    for stage in folder.glob("[!.]*/"):
        files = [path.stat() for path in stage.iterdir()]
        if files:
            yield max(f.st_mtime for f in files), sum(f.st_size for f in files), stage


def _lock(folder: Path) -> FileLock:
    """The lock of a stage, which outlives its folder: whoever waits for it must not be cheated."""
    locks = folder.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{folder.name}.lock")


def _read(path: Path) -> Any | None:
    try:
        return checkpoint.load(path)
    except checkpoint.DamagedCheckpoint as error:
        warnings.warn(f"{error}. It is left aside", stacklevel=4)
        return None


def _unwritable(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"Cannot write to {folder}: {error.strerror or error}. What was good is kept, and the same "
        "command goes on from there: free space or choose another folder with --results"
    )

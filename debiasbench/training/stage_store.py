"""Stages on disk: running stages can be resumed, finished stages are not trained again."""

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
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

FOLDER = ".stages"
RUNNING, FINISHED = "running", "finished"
LIMIT = 4_000_000_000  # bytes of stages that are kept by default
SHARE = 0.02  # largest fraction of the time that is spent on writing checkpoints


@dataclass(frozen=True)
class Finished:
    """A finished stage, as listed by `debiasbench cache ls`."""

    folder: Path
    name: str
    run: str  # id of the spec that trained it
    bytes: int
    used: float  # time of the last use, in seconds since 1970


class StageStore:
    """A folder of stages, which any number of processes can share.

    `identity`: everything that all stages of the run depend on, such as the fingerprint of the
    data. `run`: the id of the spec. `own`: what else the stages depend on that only this run can
    use. `every`: seconds between checkpoints, or more if writing them would take more than a
    fiftieth of the time. `reuse`: whether stored stages are loaded.
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
        self._own: list[Path] = []  # folders that other runs cannot use

    @contextmanager
    def open(
        self,
        name: str,
        content: Mapping[str, object],
        *,
        shared: bool,
        check: Callable[[], object] = lambda: None,
    ) -> Iterator[StoredStage]:
        """Lock a stage while it is trained; other processes that need the same stage wait.

        `content`: everything else that decides the stage, as JSON. `shared`: whether other runs
        can use the stage. `check` is called while waiting, and can raise to end the wait. Raises
        `StoreError` if the folder cannot be written.
        """
        key = [self._identity, content, None if shared else [*self._private, name]]
        folder = self.folder / digest(key)[:32]
        try:
            lock = _lock(folder)
            _wait_for(lock, check)
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        try:
            if not shared:
                self._own.append(folder)
            yield StoredStage(folder, name, self)
        finally:
            with suppress(OSError):
                folder.rmdir()  # fails unless the folder is empty
            lock.release()

    def done(self) -> None:
        """Remove the stages that only this run can use, after its record was written."""
        for folder in self._own:
            shutil.rmtree(folder, ignore_errors=True)
        self._own = []


class StoredStage:
    """The files of one stage; created by `StageStore.open`."""

    def __init__(self, folder: Path, name: str, store: StageStore) -> None:
        self._folder, self._name, self._store = folder, name, store
        self._next = time.monotonic() + store.every

    def finished(self) -> Mapping[str, Any] | None:
        """Return what `finish` wrote, with "run", the id of the spec that trained the stage.

        Return None if the stage is not finished or must not be reused.
        """
        path = self._folder / FINISHED
        if not path.exists():
            return None
        if not self._store.reuse:
            path.unlink()
            return None
        state = _read(path)
        if state is not None:
            path.touch()  # the least recently used stages are removed first
        return state

    def running(self) -> Any | None:
        """Return the last complete checkpoint, or None."""
        if not self._store.reuse:
            self._forget()
            return None
        for path in (self._folder / RUNNING, checkpoint.previous(self._folder / RUNNING)):
            if path.exists() and (state := _read(path)) is not None:
                return state
        return None

    def is_due(self) -> bool:
        """Return whether the next checkpoint is due."""
        return time.monotonic() >= self._next

    def checkpoint(self, state: object) -> None:
        """Write a checkpoint, and keep the previous one until then. Raises `StoreError`."""
        begun = time.monotonic()
        self._write(RUNNING, state)
        seconds = time.monotonic() - begun
        self._next = time.monotonic() + max(self._store.every, seconds / SHARE)

    def finish(self, state: Mapping[str, object]) -> None:
        """Write the result of the stage, and remove its checkpoints. Raises `StoreError`."""
        self._write(FINISHED, {**state, "run": self._store.run, "name": self._name})
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
    """List the finished stages in a folder, most recently used first, without damaged ones."""
    stages = []
    for path in folder.glob(f"*/{FINISHED}"):
        state = _read(path)
        if state is not None:
            stat = path.stat()
            stages.append(
                Finished(path.parent, state["name"], state["run"], stat.st_size, stat.st_mtime)
            )
    return sorted(stages, key=lambda stage: -stage.used)


def weight(folder: Path) -> int:
    """Return the size in bytes of all stages in a folder, finished or not."""
    return sum(size for _, size, _ in _sizes(folder))


def collect(folder: Path, limit: int = LIMIT) -> list[Path]:
    """Remove the least recently used stages until at most `limit` bytes are left.

    Checkpoints of stages that failed or were never resumed count too. Stages that a process is
    using are kept. Returns the folders that were removed.
    """
    removed, total = [], 0
    for _, size, stage in sorted(_sizes(folder), reverse=True):
        total += size
        if total <= limit:
            continue
        try:
            with _lock(stage).acquire(timeout=0):
                shutil.rmtree(stage, ignore_errors=True)
                removed.append(stage)
        except Timeout:
            continue
    return removed


def _sizes(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield for each stage the time of its last use, its size in bytes and its folder."""
    for stage in folder.glob("[!.]*/"):
        files = [path.stat() for path in stage.iterdir()]
        if files:
            yield max(f.st_mtime for f in files), sum(f.st_size for f in files), stage


def _lock(folder: Path) -> FileLock:
    """Return the lock of a stage; its file stays when the stage is removed, as others may wait."""
    locks = folder.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{folder.name}.lock")


def _wait_for(lock: FileLock, check: Callable[[], object]) -> None:
    while True:
        check()
        try:
            lock.acquire(timeout=1)
        except Timeout:
            continue
        return


def _read(path: Path) -> Any | None:
    try:
        return checkpoint.load(path)
    except checkpoint.DamagedCheckpoint as error:
        warnings.warn(f"{error}. It is ignored", stacklevel=4)
        return None


def _unwritable(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"Cannot write to {folder}: {error.strerror or error}. Free disk space, or choose another "
        "folder with --results; the same command then resumes from the last good checkpoint"
    )

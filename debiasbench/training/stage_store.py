"""Stages on disk: a running stage is resumed, a finished stage is not trained again."""

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


class StageStore:
    """A folder of stages, which any number of processes may share.

    `identity`: what all stages of the run depend on, such as the data's fingerprint; `run`: the
    spec's id; `own`: what stages depend on that no other run could use. `every`: seconds between
    checkpoints, more where writing one takes more than a fiftieth of that; `reuse`: whether
    stored stages are loaded.
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
        self._own: list[Path] = []  # folders of no use to other runs

    @contextmanager
    def open(
        self, name: str, content: Mapping[str, object], *, shared: bool
    ) -> Iterator[StoredStage]:
        """Hold a stage while it is trained; another process that needs the same stage waits.

        `content`: everything else that decides the stage, as JSON. `shared`: whether other runs
        may use the stage. Raises `StoreError` if the folder cannot be written.
        """
        key = [self._identity, content, None if shared else [*self._private, name]]
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
            yield StoredStage(folder, name, self)
        finally:
            with suppress(OSError):
                folder.rmdir()  # if nothing came of it
            lock.release()

    def done(self) -> None:
        """Remove what only this run could use: its record is written."""
        for folder in self._own:
            shutil.rmtree(folder, ignore_errors=True)
        self._own = []


class StoredStage:
    """What is on disk of one stage; made by `StageStore.open`."""

    def __init__(self, folder: Path, name: str, store: StageStore) -> None:
        self._folder, self._name, self._store = folder, name, store
        self._next = time.monotonic() + store.every

    def finished(self) -> Mapping[str, Any] | None:
        """Return what `finish` was given, with `run`, the id of the spec that trained it."""
        path = self._folder / FINISHED
        if not path.exists():
            return None
        if not self._store.reuse:
            path.unlink()
            return None
        found = _read(path)
        if found is not None:
            path.touch()  # so that stages in use stay longest
        return found

    def running(self) -> Any | None:
        """Return the last complete checkpoint, None if there is none."""
        if not self._store.reuse:
            self._forget()
            return None
        for path in (self._folder / RUNNING, checkpoint.previous(self._folder / RUNNING)):
            if path.exists() and (found := _read(path)) is not None:
                return found
        return None

    def is_due(self) -> bool:
        """Return whether it is time for a checkpoint."""
        return time.monotonic() >= self._next

    def checkpoint(self, state: object) -> None:
        """Write a checkpoint; the previous one stays until it is complete. Raises `StoreError`."""
        begun = time.monotonic()
        self._write(RUNNING, state)
        taken = time.monotonic() - begun
        self._next = time.monotonic() + max(self._store.every, taken / SHARE)

    def finish(self, state: Mapping[str, object]) -> None:
        """Write what the stage left, and remove its checkpoints. Raises `StoreError`."""
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
    """List the finished stages in a folder, last used first, without damaged ones."""
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
    """Remove the stages that were used longest ago until at most `limit` bytes are left.

    Checkpoints of stages that failed or were never resumed count too. Stages that a process holds
    stay. Returns the folders that were removed.
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
    """Return the lock of a stage. It outlives the folder, for processes that wait for it."""
    locks = folder.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{folder.name}.lock")


def _read(path: Path) -> Any | None:
    try:
        return checkpoint.load(path)
    except checkpoint.DamagedCheckpoint as error:
        warnings.warn(f"{error}. It is ignored", stacklevel=4)
        return None


def _unwritable(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"Cannot write to {folder}: {error.strerror or error}. Free space or choose another folder "
        "with --results; the same command then resumes from the last good checkpoint"
    )

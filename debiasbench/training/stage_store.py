"""Stages on disk: running stages can be resumed, finished stages are not trained again."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debiasbench.common.atomic import write_whole
from debiasbench.common.canonical import digest
from debiasbench.common.errors import StoreError
from debiasbench.common.folders import entries, status
from debiasbench.common.locks import LockHeldError, Wait, locked, remove_leftovers
from debiasbench.training import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

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
        wait: Wait = "always",
    ) -> Iterator[StoredStage]:
        """Lock a stage while it is trained; other processes that need the same stage wait.

        `wait`: see `debiasbench.common.locks.locked`.

        `content`: everything else that decides the stage, as JSON. `shared`: whether other runs
        can use the stage. `check` is called while waiting, and can raise to end the wait. Raises
        `StoreError` if the folder cannot be written.
        """
        folder = self.folder / self.key(name, content, shared=shared)
        with ExitStack() as stack:
            try:
                purpose = f"stage {name!r}"
                lock = locked(self.folder, folder.name, wait=wait, purpose=purpose, check=check)
                stack.enter_context(lock)
                folder.mkdir(exist_ok=True)
            except OSError as error:
                raise _unwritable(self.folder, error) from error
            stack.callback(_remove_if_empty, folder)
            _remove_unfinished(folder)
            if not shared:
                self._own.append(folder)
            yield StoredStage(folder, name, self)

    def key(self, name: str, content: Mapping[str, object], *, shared: bool) -> str:
        """Return the name of the folder of a stage; see `open`."""
        own = None if shared else [*self._private, name]
        return digest([self._identity, content, own])[:32]

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
        if not self._store.reuse:
            _remove(path)
            return None
        state = _read(path)
        if state is not None:
            with suppress(OSError):
                os.utime(path)  # the least recently used stages are removed first
        return state

    def running(self) -> Any | None:
        """Return the last complete checkpoint, or None."""
        if not self._store.reuse:
            self._forget()
            return None
        for path in (self._folder / RUNNING, checkpoint.previous(self._folder / RUNNING)):
            if (state := _read(path)) is not None:
                return state
        return None

    def is_due(self) -> bool:
        """Return whether the next checkpoint is due."""
        return time.monotonic() >= self._next

    def checkpoint(self, state: object) -> None:
        """Write a checkpoint, and keep the previous one until then. Raises `StoreError`."""
        begun = time.monotonic()
        path = self._folder / RUNNING
        try:
            try:
                checkpoint.save(path, state)
            except FileNotFoundError:  # somebody removed the folder of all stages meanwhile
                path.parent.mkdir(parents=True, exist_ok=True)
                checkpoint.save(path, state)
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        seconds = time.monotonic() - begun
        self._next = time.monotonic() + max(self._store.every, seconds / SHARE)

    def finish(self, state: Mapping[str, object]) -> None:
        """Write the result of the stage, and remove its checkpoints.

        If the result cannot be written, the last checkpoint is kept, with a warning: the run does
        not depend on it.
        """
        whole = checkpoint.dumps({**state, "run": self._store.run, "name": self._name})
        path = self._folder / FINISHED
        try:
            try:
                write_whole(path, whole)
            except OSError:
                _remove(checkpoint.previous(self._folder / RUNNING))  # there may be room now
                write_whole(path, whole)
        except OSError as error:
            warnings.warn(
                f"Stage {self._name!r} could not be stored in {self._folder} "
                f"({error.strerror or error}). This run continues, but another run that needs the "
                "stage must train it again",
                stacklevel=2,
            )
            return
        self._forget()

    def _forget(self) -> None:
        for path in (self._folder / RUNNING, checkpoint.previous(self._folder / RUNNING)):
            _remove(path)


def all_in(folder: Path) -> list[Finished]:
    """List the finished stages in a folder, most recently used first, without damaged ones.

    Only the beginning of each file is read, so some damage is found only when a stage is used.
    Raises `StoreError` if the folder cannot be read.
    """
    found = (_finished(stage) for stage in _stages(folder))
    return sorted((stage for stage in found if stage is not None), key=lambda stage: -stage.used)


def sizes(folder: Path) -> dict[Path, int]:
    """Return the size in bytes of each stage in a folder, finished or not, by its folder.

    Raises `StoreError` if the folder cannot be read.
    """
    return {stage: size for _, size, stage in _uses(folder)}


def collect(folder: Path, limit: int = LIMIT) -> list[Path]:
    """Remove the least recently used stages until at most `limit` bytes are left.

    Checkpoints of stages that failed or were never resumed count too. Stages that a process is
    using are kept. Returns the folders that were removed. Raises `StoreError` if the folder cannot
    be read.
    """
    removed, total = [], 0
    for _, size, stage in sorted(_uses(folder), reverse=True):
        total += size
        if total > limit and _removed(stage):
            removed.append(stage)
    return removed


def tidy(folder: Path) -> None:
    """Remove the locks and empty folders that killed processes left."""
    for stage in _stages(folder):
        with suppress(LockHeldError, OSError):
            if not entries(stage):
                with locked(folder, stage.name, wait="never"):
                    _remove_if_empty(stage)
    remove_leftovers(folder)


def _stages(folder: Path) -> list[Path]:
    try:
        found = entries(folder)
    except OSError as error:
        raise StoreError(f"Cannot read {folder}: {error.strerror or error}") from error
    return [Path(e) for e in found if e.name[0] != "." and e.is_dir(follow_symlinks=False)]


def _finished(stage: Path) -> Finished | None:
    """Return what the beginning of the file of a finished stage says, None if there is none."""
    path = stage / FINISHED
    state, found = _read(path, checkpoint.outline), status(path)
    if not isinstance(state, dict) or found is None:
        return None
    name, run = str(state.get("name")), str(state.get("run"))
    return Finished(stage, name, run, found.st_size, found.st_mtime)


def _uses(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield for each stage with files the time of its last use, its size and its folder."""
    for stage in _stages(folder):
        try:
            files = [found for entry in entries(stage) if (found := status(entry)) is not None]
        except OSError:  # the folder of another user
            continue
        if files:
            yield max(f.st_mtime for f in files), sum(f.st_size for f in files), stage


def _removed(stage: Path) -> bool:
    """Remove a stage that no process is using; return whether that was possible."""
    try:
        with locked(stage.parent, stage.name, wait="never"):
            if not stage.exists():
                return False  # another process removed it meanwhile
            shutil.rmtree(stage, ignore_errors=True)
            return not stage.exists()
    except (LockHeldError, OSError):
        return False


def _remove_if_empty(stage: Path) -> None:
    with suppress(OSError):
        stage.rmdir()  # fails unless the folder is empty


def _remove_unfinished(stage: Path) -> None:
    """Remove what a killed process wrote under a temporary name; the caller holds the lock."""
    with suppress(OSError):
        for entry in entries(stage):
            if entry.name.startswith("."):
                _remove(Path(entry))


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _read(path: Path, read: Callable[[Path], Any] = checkpoint.load) -> Any | None:
    """Read a file, or return None if there is none; with a warning if it is damaged."""
    if not path.is_file():
        return None
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except checkpoint.DamagedCheckpoint as error:
        warnings.warn(f"{error}. It is ignored", stacklevel=4)
        return None


def _unwritable(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"Cannot write to {folder}: {error.strerror or error}. Free disk space, or choose another "
        "folder with --results; the same command then resumes from the last good checkpoint"
    )

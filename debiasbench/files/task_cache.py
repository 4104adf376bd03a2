"""Tasks kept decoded under the data root, so that images are read once and then memory-mapped."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from debiasbench.common.canonical import digest
from debiasbench.common.errors import DataError
from debiasbench.common.options import as_dict
from debiasbench.files import task_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from debiasbench.core.data import Dataset, Task

FOLDER = "cache"


@dataclass(frozen=True)
class Cached:
    """A task that lies in a cache."""

    folder: Path
    name: str  # of the data set
    options: Mapping[str, Any]
    bytes: int


def load(name: str, dataset: Dataset, root: Path) -> Task:
    """Return a data set's task: out of the cache if it is there, else made and put there.

    What has no `sources` is made each time. Two processes that need the same task make it once;
    one that dies leaves nothing that the next would take for a task. A damaged cache is made
    again with a warning, and where none can be written the task is made in memory with one.
    Raises `DataError`.
    """
    sources = dataset.sources(root)
    if not sources or not root.is_dir():  # `load` knows best what is missing
        return _augmented(dataset.load(root), dataset)
    key = _key(name, dataset, root, sources)
    folder = root / FOLDER / f"{name.replace(':', '-')}-{digest(key)[:16]}"
    task = _read(folder, dataset, tell=True)
    if task is not None:
        return task
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        lock.acquire()
    except OSError as error:
        return _told(_augmented(dataset.load(root), dataset), root, error)
    try:
        task = _read(folder, dataset)  # another process may have made it while this one waited
        if task is not None:
            return task
        made = dataset.load(root)
        try:
            _put(made, folder, {"dataset": name, "key": key})
        except OSError as error:
            _remove(folder)
            return _told(_augmented(made, dataset), root, error)
        del made
        task = _read(folder, dataset)
        if task is None:
            raise DataError(f"{folder} was damaged while it was written: is the disk sound?")
        return task
    finally:
        lock.release()


def all_in(root: Path) -> list[Cached]:
    """List the tasks in the cache of a data root, by name; damaged ones too."""
    found = []
    for folder in sorted((root / FOLDER).glob("[!.]*")):
        if not folder.is_dir():
            continue
        try:
            more = task_folder.facts(folder)["more"]
            name, options = more["dataset"], more["key"]["options"]
        except (task_folder.DamagedTask, KeyError, TypeError):
            name, options = folder.name, {}
        found.append(Cached(folder, name, options, weight(folder)))
    return found


def weight(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in _files(path))


def _read(folder: Path, dataset: Dataset, *, tell: bool = False) -> Task | None:
    if not folder.exists():
        return None
    try:
        return _augmented(task_folder.load(folder), dataset)
    except DataError as error:
        if tell:
            warnings.warn(f"{error}. It is made again", stacklevel=3)
        return None


def _put(task: Task, folder: Path, more: Mapping[str, object]) -> None:
    """Write a task under a name of its own and rename it; the lock is held."""
    _remove(folder)
    fresh = _fresh(folder)
    fresh.mkdir()
    task_folder.save(task, fresh, more)
    fresh.rename(folder)


def _remove(folder: Path) -> None:
    for leftover in (folder, _fresh(folder)):  # the latter of a process that died
        shutil.rmtree(leftover, ignore_errors=True)


def _fresh(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.new")


def _told(task: Task, root: Path, error: OSError) -> Task:
    what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
    warnings.warn(
        f"Nothing can be kept in {root / FOLDER} ({what}), so the images are read each time",
        stacklevel=3,
    )
    return task


def _augmented(task: Task, dataset: Dataset) -> Task:
    if task.augment is None and (augment := dataset.augmentation()) is not None:
        return replace(task, augment=augment)
    return task


def _key(name: str, dataset: Dataset, root: Path, sources: Sequence[Path]) -> dict[str, object]:
    """Everything that decides the bytes of a task, but for what files hold inside."""
    return {
        "dataset": name,
        "class": f"{type(dataset).__module__}.{type(dataset).__qualname__}",
        "revision": dataset.revision,
        "options": as_dict(dataset),
        "sources": digest([_stamp(path, root) for source in sources for path in _files(source)]),
    }


def _files(path: Path) -> Iterator[Path]:
    """The files at a path, in order; links to folders are not followed, so that none loops."""
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for file in sorted(names):
            yield Path(folder, file)


def _stamp(path: Path, root: Path) -> list[object]:
    try:
        found = path.stat()
    except OSError:
        return [str(path), None]  # `load` will say that it is missing
    where = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
    return [where, found.st_size, found.st_mtime_ns]

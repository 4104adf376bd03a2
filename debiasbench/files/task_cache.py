"""A cache of decoded tasks under the data root: images are decoded once, then memory-mapped."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from contextlib import suppress
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
    """A task in the cache."""

    folder: Path
    name: str  # name of the data set
    options: Mapping[str, Any]
    bytes: int


def load(name: str, dataset: Dataset, root: Path) -> Task:
    """Return the task of a data set from the cache; load and cache it if it is not there.

    A data set without `sources` is loaded each time. Two processes that need the same task load it
    once. A killed process leaves nothing that is taken for a task. If the cached task is damaged,
    or the cache cannot be written, the data set is loaded again with a warning. Raises `DataError`,
    also for a file or folder that cannot be read.
    """
    try:
        return _load(name, dataset, root)
    except OSError as error:
        raise DataError(
            f"The data set {name} cannot be read: {error.filename or root}: "
            f"{error.strerror or error}. Check the name and the permissions, or choose another "
            "folder with --data-root or DEBIASBENCH_DATA"
        ) from error


def _load(name: str, dataset: Dataset, root: Path) -> Task:
    sources = dataset.sources(root)
    if not sources or not root.is_dir():  # `load` reports what is missing
        return _augmented(dataset.load(root), dataset)
    key = _key(name, dataset, root, sources)
    folder = root / FOLDER / f"{name.replace(':', '-')}-{digest(key)[:16]}"
    task = _read(folder, dataset, warn=True)
    if task is not None:
        return task
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        lock.acquire()
    except OSError as error:
        return _uncached(_augmented(dataset.load(root), dataset), root, error)
    try:
        task = _read(folder, dataset)  # another process may have cached it meanwhile
        if task is not None:
            return task
        task = dataset.load(root)
        try:
            _write(task, folder, {"dataset": name, "key": key})
        except OSError as error:
            _remove(folder)
            return _uncached(_augmented(task, dataset), root, error)
        del task  # frees the memory before the file is mapped
        task = _read(folder, dataset)
        if task is None:
            raise DataError(f"{folder} was damaged while it was written. Check the disk")
        return task
    finally:
        lock.release()


def all_in(root: Path) -> list[Cached]:
    """List the tasks in the cache of a data root by name, including damaged ones."""
    tasks = []
    for folder in sorted((root / FOLDER).glob("[!.]*")):
        if not folder.is_dir():
            continue
        try:
            more = task_folder.facts(folder)["more"]
            name, options = more["dataset"], more["key"]["options"]
        except (task_folder.DamagedTask, KeyError, TypeError):
            name, options = folder.name, {}
        tasks.append(Cached(folder, name, options, weight(folder)))
    return tasks


def weight(path: Path) -> int:
    """Return the size in bytes of a file, or of all files in a folder that can be read."""
    total = 0
    for file in _files(path):
        with suppress(OSError):  # removed meanwhile, or a link to nothing
            total += file.stat().st_size
    return total


def _read(folder: Path, dataset: Dataset, *, warn: bool = False) -> Task | None:
    if not folder.exists():
        return None
    try:
        return _augmented(task_folder.load(folder), dataset)
    except DataError as error:
        if warn:
            warnings.warn(f"{error}. The data set is decoded again", stacklevel=3)
        return None


def _write(task: Task, folder: Path, more: Mapping[str, object]) -> None:
    """Write a task under a temporary name and rename it; the caller holds the lock."""
    _remove(folder)
    fresh = _fresh(folder)
    fresh.mkdir()
    task_folder.save(task, fresh, more)
    fresh.rename(folder)


def _remove(folder: Path) -> None:
    for leftover in (folder, _fresh(folder)):  # the second is left by a killed process
        shutil.rmtree(leftover, ignore_errors=True)


def _fresh(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.new")


def _uncached(task: Task, root: Path, error: OSError) -> Task:
    reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
    warnings.warn(
        f"The cache {root / FOLDER} cannot be written ({reason}), so the images are decoded again "
        "in every run",
        stacklevel=3,
    )
    return task


def _augmented(task: Task, dataset: Dataset) -> Task:
    if task.augment is None and (augment := dataset.augmentation()) is not None:
        return replace(task, augment=augment)
    return task


def _key(name: str, dataset: Dataset, root: Path, sources: Sequence[Path]) -> dict[str, object]:
    """Return everything that determines the bytes of a task, except the contents of its files."""
    return {
        "dataset": name,
        "class": f"{type(dataset).__module__}.{type(dataset).__qualname__}",
        "revision": dataset.revision,
        "options": as_dict(dataset),
        "sources": digest([_stamp(path, root) for source in sources for path in _files(source)]),
    }


def _files(path: Path) -> Iterator[Path]:
    """Yield the files at a path, in order; links to folders are not followed, as they may loop."""
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for file in sorted(names):
            yield Path(folder, file)


def _stamp(path: Path, root: Path) -> list[object]:
    try:
        status = path.stat()
    except OSError:
        return [str(path), None]  # `load` reports that it is missing
    name = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
    return [name, status.st_size, status.st_mtime_ns]

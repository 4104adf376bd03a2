"""A cache of decoded tasks under the data root: images are decoded once, then memory-mapped."""

from __future__ import annotations

import errno
import shutil
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debiasbench.common.canonical import digest
from debiasbench.common.errors import DataError
from debiasbench.common.folders import entries, files, status
from debiasbench.common.locks import locked
from debiasbench.common.options import as_dict
from debiasbench.common.wording import shortened
from debiasbench.files import task_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
        if error.errno is None:  # not of the system, but raised by the data set's own code
            raise
        raise DataError(
            f"The data set {name} cannot be read: {shortened(str(error.filename or root))}: "
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
    with ExitStack() as stack:
        try:
            purpose = f"the decoded data set {name!r}"
            stack.enter_context(locked(folder.parent, folder.name, purpose=purpose))
        except OSError as error:
            return _uncached(_augmented(dataset.load(root), dataset), root, error)
        task = _read(folder, dataset)  # another process may have cached it meanwhile
        if task is not None:
            return task
        task = dataset.load(root)
        try:
            write_folder(task, folder, {"dataset": name, "key": key})
        except OSError as error:
            _remove(folder)
            return _uncached(_augmented(task, dataset), root, error)
        del task  # frees the memory before the file is mapped
        task = _read(folder, dataset)
        if task is None:
            raise DataError(f"{folder} was damaged while it was written. Check the disk")
        return task


def all_in(root: Path) -> list[Cached]:
    """List the tasks in the cache of a data root by name, including damaged ones."""
    tasks = []
    for entry in entries(root / FOLDER):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        folder = Path(entry)
        try:
            more = task_folder.facts(folder)["more"]
            name, options = more["dataset"], more["key"]["options"]
        except (task_folder.DamagedTask, KeyError, TypeError):
            if not folder.is_dir():
                continue  # another process removed it meanwhile
            name, options = folder.name, {}
        tasks.append(Cached(folder, name, options, weight(folder)))
    return tasks


def weight(path: Path) -> int:
    """Return the size in bytes of a file, or of all files in a folder that can be read."""
    return sum(found.st_size for file in files(path) if (found := status(file)) is not None)


def _read(folder: Path, dataset: Dataset, *, warn: bool = False) -> Task | None:
    task = read_folder(folder, warn=warn)
    return None if task is None else _augmented(task, dataset)


def read_folder(folder: Path, *, warn: bool = False) -> Task | None:
    """Return the task in a folder of the cache; None if there is none, or if it is damaged."""
    if not folder.exists():
        return None
    try:
        return task_folder.load(folder)
    except DataError as error:
        if warn:
            warnings.warn(f"{error}. The data set is decoded again", stacklevel=4)
        return None


def write_folder(task: Task, folder: Path, more: Mapping[str, object]) -> None:
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
    options = as_dict(dataset)
    for option in dataset.augmentation_options:
        options.pop(option, None)
    return {
        "dataset": name,
        "class": f"{type(dataset).__module__}.{type(dataset).__qualname__}",
        "revision": dataset.revision,
        "options": options,
        "sources": digest([_stamp(path, root) for source in sources for path in files(source)]),
    }


def _stamp(path: Path, root: Path) -> list[object]:
    found = status(path)
    if found is None:
        return [str(path), None]  # `load` reports that it is missing
    name = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
    return [name, found.st_size, found.st_mtime_ns]

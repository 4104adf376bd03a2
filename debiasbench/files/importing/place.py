"""Where a data set is written: under a name of its own, renamed when it is whole."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from debiasbench.common.errors import BusyError, DataError
from debiasbench.files.importing.folder import aside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def claimed(whole: Path) -> Iterator[None]:
    """Hold the right to write the data set `whole`, and clear away what dead processes left.

    The system gives the right back when the process dies. An `OSError` within is a `DataError`.
    Raises `BusyError` if another process holds it.
    """
    with _writing(whole.parent):
        (whole.parent / ".locks").mkdir(parents=True, exist_ok=True)
        lock = _lock(whole)
        try:
            lock.acquire()
        except Timeout as error:
            raise BusyError(
                f"{whole.name!r} is being imported by another process: wait for it, or choose "
                "another name"
            ) from error
        try:
            _tidy(whole)
            _tidy_others(whole.parent)
            yield
        finally:
            with suppress(OSError):
                _tidy(whole)
            lock.release()


def fresh(whole: Path) -> Path:
    """Return where a data set lies until it is whole; nothing there outlives its process."""
    return whole.with_name(f".{whole.name}.new")


def swap(whole: Path) -> None:
    """Give what was written its name; what has the name steps aside, and is removed after."""
    _sync(fresh(whole))
    if whole.exists():
        whole.rename(aside(whole))
    fresh(whole).rename(whole)
    _sync(whole.parent)
    _tidy(whole)


def _tidy(whole: Path) -> None:
    """Bring back what stepped aside, if nothing took its place, and remove the rest."""
    if aside(whole).exists() and not whole.exists():
        aside(whole).rename(whole)
    if fresh(whole).exists():
        shutil.rmtree(fresh(whole))
    if aside(whole).exists():
        # half of it must never stand where a whole one is looked for
        aside(whole).rename(fresh(whole))
        shutil.rmtree(fresh(whole))


def _tidy_others(folder: Path) -> None:
    """Do the same for other names, as they may not be imported again."""
    for leftover in (*folder.glob(".*.new"), *folder.glob(".*.old")):
        whole = folder / leftover.name[1:-4]
        with suppress(Timeout, OSError), _lock(whole):
            _tidy(whole)


def _lock(whole: Path) -> FileLock:
    return FileLock(whole.parent / ".locks" / f"{whole.name}.lock", timeout=0)


def _sync(folder: Path) -> None:
    """Let the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"Nothing was imported, as {folder} cannot be written: {error.strerror or error}. "
            "Free space and permissions there, or choose another --data-root"
        ) from error

"""Write a data set under a temporary name, and rename it when it is complete."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from debiasbench.common.errors import BusyError, DataError
from debiasbench.common.folders import entries
from debiasbench.common.locks import LockHeldError, locked
from debiasbench.common.wording import shortened
from debiasbench.files.importing.folder import aside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def claimed(whole: Path, verb: str = "imported") -> Iterator[None]:
    """Hold the lock for writing the data set `whole`, and remove what killed processes left.

    The lock is free again if the process dies. An `OSError` inside becomes a `DataError`. Raises
    `BusyError` if another process holds the lock.
    """
    with _writing(whole.parent, verb), ExitStack() as stack:
        try:
            stack.enter_context(locked(whole.parent, whole.name, wait="if void"))
        except LockHeldError as error:
            raise BusyError(
                f"{whole.name!r} is being imported or removed by {error.holder}. Wait for it"
            ) from error
        stack.callback(_clean_up_quietly, whole)
        _clean_up(whole)
        _clean_up_others(whole.parent)
        yield


def fresh(whole: Path) -> Path:
    """Return the temporary folder of a data set; it is removed if its process dies."""
    return whole.with_name(f".{whole.name}.new")


def swap(whole: Path) -> None:
    """Rename the temporary folder to `whole`; an existing `whole` is set aside, then removed."""
    _sync(fresh(whole))
    if whole.exists():
        whole.rename(aside(whole))
    fresh(whole).rename(whole)
    _sync(whole.parent)
    _clean_up(whole)


def discard(folder: Path, whole: Path) -> None:
    """Remove a folder of the data set `whole`; it is renamed first, so no part of it is read."""
    folder.rename(fresh(whole))
    _clean_up(whole)
    _sync(whole.parent)


def _clean_up(whole: Path) -> None:
    """Restore a data set that was set aside if no other replaced it, and remove the rest."""
    if aside(whole).exists() and not whole.exists():
        aside(whole).rename(whole)
    if fresh(whole).exists():
        shutil.rmtree(fresh(whole))
    if aside(whole).exists():
        # renamed first: a partly deleted folder must not have a name that is searched
        aside(whole).rename(fresh(whole))
        shutil.rmtree(fresh(whole))


def _clean_up_quietly(whole: Path) -> None:
    with suppress(OSError):
        _clean_up(whole)


def _clean_up_others(folder: Path) -> None:
    """Clean up the other names too, because they may never be imported again."""
    for entry in entries(folder):
        if entry.name.startswith(".") and entry.name.endswith((".new", ".old")):
            name = entry.name[1:-4]
            with suppress(LockHeldError, OSError), locked(folder, name, wait="never"):
                _clean_up(folder / name)


def _sync(folder: Path) -> None:
    """Make the names in a folder survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _writing(folder: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"Nothing was {verb}, because {shortened(str(folder))} cannot be written: "
            f"{error.strerror or error}. Check its free space and permissions, or "
            "choose another folder with --data-root"
        ) from error

"""Walks over folders that other processes change meanwhile: what vanishes is left out."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# ENOTDIR: a folder was replaced by a file; ESTALE: another machine removed a file on NFS
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder by name, none if there is no such folder.

    Raises `OSError` if the folder cannot be read.
    """
    try:
        with os.scandir(folder) as listing:
            return sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        if error.errno in _VANISHED:
            return []
        raise


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; a name that no file can have is none.

    Raises `OSError` if that cannot be known, because a folder above it cannot be read.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except ValueError:  # a null byte
        return False
    except OSError as error:
        if error.errno in {*_VANISHED, errno.ENAMETOOLONG, errno.ELOOP}:
            return False
        raise


def status(path: Path | os.DirEntry[str]) -> os.stat_result | None:
    """Return the status of a file or folder, or None if it vanished or cannot be reached."""
    try:
        return path.stat()
    except OSError:
        return None


def files(path: Path) -> Iterator[Path]:
    """Yield the file at a path, or all files below a folder that can be read, in order.

    Links to folders are not followed, as they may loop.
    """
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            yield Path(folder, name)

"""Refuse FIFOs and devices before they are opened: reading them may never end."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def check_regular(path: Path) -> None:
    """Raise `OSError` unless a path is a regular file or a link to one."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "It is not a regular file", str(path))


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; a name that no file can have is none.

    Raises `OSError` if that cannot be known, because a folder above it cannot be read.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except ValueError:  # a null byte
        return False
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}:
            return False
        raise

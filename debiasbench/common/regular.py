"""Read files that may be anything: only regular files, and only up to a size."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def read_regular(path: Path, most: int | None = None) -> bytes:
    """Return the content of a regular file of at most `most` bytes, of any size if None.

    FIFOs and devices are refused before they are opened, because reading them may never end.
    Raises `OSError`; its `strerror` is the reason.
    """
    _check(path.stat(), path, most)
    # between the two checks the file may have become a FIFO, which must not block
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        size = _check(os.fstat(descriptor), path, most)
        content = file.read(size)
        while len(content) < size and (more := file.read(size - len(content))):
            content += more  # the system reads at most 2 GB in one call
    return content


def check_regular(path: Path) -> None:
    """Raise `OSError` unless a path is a regular file, or a link to one, for other readers."""
    _check(path.stat(), path, None)


def _check(status: os.stat_result, path: Path, most: int | None) -> int:
    """Return the size of a file; raise `OSError` if it must not be read."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "It is not a regular file", str(path))
    if most is not None and status.st_size > most:
        size = f"It has {status.st_size:,} bytes, and {most:,} are the most"
        raise OSError(errno.EFBIG, size, str(path))
    return status.st_size

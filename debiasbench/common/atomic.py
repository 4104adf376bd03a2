"""Write a file atomically: completely or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from pathlib import Path


def write_whole(path: Path, content: bytes, *, before: Path | None = None) -> None:
    """Write a hidden file in the same folder, sync it and rename it to `path`.

    For the files of a folder that the caller has locked: the hidden file has always the same name,
    so that the file of a process that was killed is replaced. No reader ever sees an incomplete
    file. `before`: an existing file is renamed to this path when the new one is complete. Raises
    `OSError`; then the folder is unchanged.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        try:
            _write(temporary, content)
        except FileExistsError:
            temporary.unlink()
            _write(temporary, content)
        if before is not None and path.exists():
            path.replace(before)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def rewrite(path: Path, content: bytes) -> None:
    """Give a user's file new content, and keep everything else about it.

    A symbolic link stays, and the file that it names is written. Mode, owner and extended
    attributes stay. Raises `OSError`, also if `path` is not a regular file; then the file is
    unchanged.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        status = None
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "It is not a regular file", str(path))
    target = Path(os.path.realpath(path))
    # nobody can guess the name, and so put a link to another file there
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.new")
    try:
        _write(temporary, content)
        if status is not None:
            _keep(target, status, temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _write(temporary: Path, content: bytes) -> None:
    """Create a file and sync it; raises `FileExistsError` for anything that exists, links too."""
    with temporary.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _keep(target: Path, status: os.stat_result, temporary: Path) -> None:
    """Give `temporary` the owner, the mode and the attributes of `target`."""
    made = temporary.stat()
    if (made.st_uid, made.st_gid) != (status.st_uid, status.st_gid):
        try:
            os.chown(temporary, status.st_uid, status.st_gid)
        except PermissionError as error:
            reason = "It belongs to another user or group, which would change"
            raise PermissionError(errno.EPERM, reason, str(target)) from error
    shutil.copystat(target, temporary)
    os.utime(temporary)  # its content is new


def _sync_folder(folder: Path) -> None:
    """Sync a folder, so that a rename survives a power failure."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)

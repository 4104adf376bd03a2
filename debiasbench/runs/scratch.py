"""`Scratch`: the results folder of processes on a node that does not share the one of its driver.

It is kept when runs were stopped, so that the same command continues if it reaches the same node.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from debiasbench.common.errors import StoreError
from debiasbench.records.beside import PREDICTIONS, WEIGHTS
from debiasbench.records.reading import TRIAL

USED = ".used"  # locked by all processes that use the folder


class Scratch:
    """A folder that processes with the same key share; raises `StoreError` if it is not ours."""

    def __init__(self, key: str) -> None:
        above = Path(tempfile.gettempdir(), f"debiasbench-{os.getuid()}")
        self.folder = above / f"ray-{key}"
        try:
            above.mkdir(mode=0o700, exist_ok=True)
            found = above.lstat()
            # anybody can make a folder of this name in a folder for all users
            if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
                raise StoreError(f"{above} belongs to another user: set TMPDIR on this node")
            self._used = self._use()
        except OSError as error:
            raise StoreError(
                f"Cannot write to {above}: {error.strerror or error}. Set TMPDIR on this node"
            ) from error

    def _use(self) -> int:
        while True:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            path = self.folder / USED
            try:
                used = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except FileNotFoundError:
                continue  # another process has just left the folder
            fcntl.flock(used, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(used)):
                    return used
            os.close(used)

    def forget(self, path: Path) -> None:
        """Remove a record, and the files beside it, that was read for the driver."""
        stem = path.name.removesuffix(TRIAL).removesuffix(".json")
        for name in (path.name, stem + PREDICTIONS, stem + WEIGHTS):
            path.with_name(name).unlink(missing_ok=True)

    def leave(self, *, empty: bool) -> None:
        """Give the folder back; `empty`: remove it if no other process uses it."""
        if empty:
            with suppress(BlockingIOError):
                fcntl.flock(self._used, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._used)

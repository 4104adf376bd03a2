"""A local folder as a place of records; whoever writes a record holds its claim."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.atomic import write_whole
from debiasbench.common.errors import RecordError, StoreError
from debiasbench.common.regular import check_regular, read_regular
from debiasbench.common.wording import shown
from debiasbench.records.places.shelf import Changed, Item, Listing
from debiasbench.records.store import Store

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from debiasbench.specs.spec import Spec


class FolderShelf:
    """A folder of records; see `Shelf`. Hidden files and folders are no part of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.title = folder, str(folder)

    def listing(self) -> Listing:
        """List all files; links to folders are not followed, as they may loop."""
        found = Listing()

        def unreadable(error: OSError) -> None:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise StoreError(f"Cannot read {error.filename}: {error.strerror}") from error

        for folder, folders, names in os.walk(self.folder, onerror=unreadable):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inner = os.path.relpath(folder, self.folder)
            prefix = "" if inner == "." else f"{inner}{os.sep}"
            for name in names:
                if not name.startswith("."):
                    found.add(Item(prefix + name, -1))
        return found

    def exists(self) -> bool:
        """Return whether there is such a folder."""
        return self.folder.is_dir()

    def read(self, name: str, most: int | None = None) -> bytes:
        """Return the content of a file of at most `most` bytes; raises `RecordError`."""
        file = self._path(name)
        try:
            return read_regular(file, most)
        except OSError as error:
            raise RecordError(f"{file} cannot be read: {error.strerror or error}") from error

    def local(self, name: str, spool: Path) -> Path:
        """Return the path of a file; raises `RecordError` if it is none."""
        file = self._path(name)
        try:
            check_regular(file)
        except OSError as error:
            raise RecordError(f"{file} cannot be read: {error.strerror or error}") from error
        return file

    def spool(self, name: str) -> Path:
        """Return a hidden path beside the file; `Store.claim` removes what is left there."""
        file = self._path(name)
        return file.with_name(f".{file.name}.new")

    def write(self, name: str, content: bytes | Path, *, new: bool) -> None:
        """Write a file completely or not at all; a hidden file of this folder is renamed."""
        file = self._path(name)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if new and os.path.lexists(file):
                raise Changed
            if isinstance(content, bytes):
                write_whole(file, content)
            else:
                _put(file, content)
        except OSError as error:
            raise StoreError(
                f"Cannot write {file}: {error.strerror or error}. Check the permissions and the "
                "free disk space"
            ) from error

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        with suppress(OSError):
            self._path(name).unlink()

    def holding(self, spec: Spec) -> AbstractContextManager[None]:
        """Hold the claim of a spec; raises `BusyError` while another process runs it."""
        # its unfinished files have the names that `write` and `spool` use
        return Store(self.folder).claim(spec, tidy=False)

    def finish(self) -> None:
        """Do nothing: files are written at once."""

    def _path(self, name: str) -> Path:
        """Return the path of a file in this folder.

        Raises `RecordError` for a name that leads out of it, whoever gave it.
        """
        parts = name.split("/")
        if any(not part or part.startswith(".") or "\0" in part for part in parts):
            raise RecordError(f"{shown(name)} cannot be the name of a file in {self.folder}")
        return self.folder.joinpath(*parts)


def _put(file: Path, content: Path) -> None:
    """Rename a hidden file to a path in its folder, or copy another file there, synced."""
    temporary = file.with_name(f".{file.name}.new")  # as `spool`
    if content != temporary:
        shutil.copyfile(content, temporary)
    with temporary.open("rb") as opened:
        os.fsync(opened.fileno())
    temporary.replace(file)

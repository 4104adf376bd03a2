"""The file of an index: numpy arrays and JSON in one archive, read member by member.

Nothing is unpickled. Members have checksums, so that a damaged file is noticed.
"""

from __future__ import annotations

import json
import secrets
import struct
import zipfile
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray


class Damaged(Exception):  # noqa: N818 - it never leaves this package
    """A file is no index that can be used."""


_FAULTS = (  # of numpy and zipfile, for a file that was damaged or is something else
    OSError,
    ValueError,
    KeyError,
    EOFError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


class Columns:
    """The columns of an index that was written; they are read when they are needed."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise Damaged from error
        try:
            self._archive: Any = np.load(self._file, allow_pickle=False)
        except _FAULTS as error:
            self._file.close()
            raise Damaged from error
        if not isinstance(self._archive, np.lib.npyio.NpzFile):
            self._file.close()
            raise Damaged

    def array(self, name: str) -> NDArray[Any]:
        """Return an array; raises `Damaged`."""
        try:
            found: NDArray[Any] = self._archive[name]
        except _FAULTS as error:
            raise Damaged from error
        return found

    def json(self, name: str) -> Any:
        """Return what was written as JSON; raises `Damaged`."""
        array = self.array(name)
        if array.dtype != np.uint8:
            raise Damaged
        try:
            return json.loads(array.tobytes())
        except (ValueError, RecursionError) as error:
            raise Damaged from error

    def close(self) -> None:
        """Close the file."""
        self._archive.close()
        self._file.close()


def about(path: Path) -> dict[str, Any]:
    """Return the version, the place and the number of records of an index; raises `Damaged`."""
    columns = Columns(path)
    try:
        found = columns.json("about")
    finally:
        columns.close()
    if not isinstance(found, dict):
        raise Damaged
    return found


def text(value: object) -> NDArray[np.uint8]:
    """Return a value as JSON in an array."""
    return np.frombuffer(json.dumps(value, separators=(",", ":")).encode(), dtype=np.uint8)


def write(path: Path, members: Iterable[tuple[str, NDArray[Any]]]) -> None:
    """Write arrays one after the other to a file that appears when it is complete.

    Of two processes that write at once, the last one wins. Raises `OSError`.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.new")
    try:
        with zipfile.ZipFile(temporary, "x", allowZip64=True) as archive:
            for name, array in members:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()

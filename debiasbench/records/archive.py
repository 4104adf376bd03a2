"""Archives of records: one file instead of thousands, read like the folder that it was made from.

An archive is a tar file compressed by xz, with the records and the files beside them. It is
unpacked once, into the user's cache, under the SHA-256 of its content.
"""

from __future__ import annotations

import io
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError, StoreError
from debiasbench.common.folders import entries
from debiasbench.common.regular import read_regular
from debiasbench.common.user_cache import user_cache
from debiasbench.common.wording import counted, readable_size, shown
from debiasbench.records.beside import ARCHIVES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ENDING = ".records.tar.xz"
FOLDER = "archives"
TEMPORARY = ".new-"
OLD = 86_400.0  # seconds; unpacking never takes as long
MOST_PACKED = 1 << 30  # bytes of an archive
MOST_BYTES = 8 << 30  # of all its files
MOST_FILES = 1_000_000
MEMORY = 256 << 20  # bytes that unpacking may take
PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,250}")
ENDINGS = (".json", ".safetensors")


def is_archive(name: str) -> bool:
    """Return whether a file name is that of an archive of records."""
    return name.endswith(ENDING) and not name.startswith(".")


def with_archives(places: Iterable[Path]) -> list[Path]:
    """Return places with the folders of archives: of those that are given, and those below folders.

    The archives below a folder follow it, in order of their paths. As for records, hidden folders
    and links to folders are left out. Raises `RecordError` for a damaged archive.
    """
    found: list[Path] = []
    for place in places:
        if is_archive(place.name):
            found.append(unpacked(place))
            continue
        found.append(place)
        for folder, folders, names in os.walk(place):  # reading reports what cannot be read
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            found += [unpacked(Path(folder, name)) for name in sorted(filter(is_archive, names))]
    return list(dict.fromkeys(found))


def is_unpacked(path: Path) -> bool:
    """Return whether a file is a copy from an archive."""
    return _root() in path.absolute().parents


@dataclass(frozen=True)
class Unpacked:
    """The copy of an archive in the user's cache: its folder, and number and bytes of its files."""

    folder: Path
    files: int
    bytes: int


def all_unpacked() -> list[Unpacked]:
    """Return the copies of all archives, by name; what killed processes have left is not listed."""
    return [_measured(folder) for folder in _copies() if not folder.name.startswith(TEMPORARY)]


def remove_unpacked() -> list[Unpacked]:
    """Remove the copies of all archives, and return them; they are made again when needed.

    What processes that were killed have left is removed, too.
    """
    import shutil
    import tempfile
    import time

    removed = all_unpacked()
    for folder in _copies():
        with suppress(OSError):
            doomed = folder
            if not folder.name.startswith(TEMPORARY):
                # renamed, so that half a copy is never taken for a whole one
                doomed = folder.rename(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder.parent))
            elif time.time() - folder.stat().st_mtime < OLD:
                continue  # it may be being written
            shutil.rmtree(doomed)
    return [one for one in removed if not one.folder.exists()]


def _copies() -> list[Path]:
    with suppress(OSError):
        return sorted(Path(entry) for entry in entries(_root()) if entry.is_dir())
    return []


def _measured(folder: Path) -> Unpacked:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return Unpacked(folder, len(sizes), sum(sizes))


def pack(files: Iterable[tuple[str, Path]]) -> bytes:
    """Return an archive of files, each with its name in the archive; equal files give equal bytes.

    Raises `StoreError` for what `unpacked` would refuse, and for a file that cannot be read.
    """
    import lzma
    import tarfile

    total, number, buffer = 0, 0, io.BytesIO()
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
    with (
        lzma.open(buffer, "wb", format=lzma.FORMAT_XZ, filters=filters) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, path in sorted(files):
            if fault := _fault(name):
                raise StoreError(f"{path} cannot be packed: its name {fault}")
            try:
                content = read_regular(path)
            except OSError as error:
                raise StoreError(f"Cannot read {path}: {error.strerror or error}") from error
            total, number = total + len(content), number + 1
            if total > MOST_BYTES or number > MOST_FILES:
                raise _too_large(total, number)
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    if buffer.tell() > MOST_PACKED:
        raise _too_large(total, number)
    return buffer.getvalue()


def _too_large(total: int, number: int) -> StoreError:
    return StoreError(
        f"{counted(number, 'file')} of {readable_size(total)} are too large for an archive that "
        f"can be read: at most {MOST_FILES:,} files of {readable_size(MOST_BYTES)}, packed into "
        f"{readable_size(MOST_PACKED)}. Pack a part, such as one method"
    )


def unpacked(archive: Path) -> Path:
    """Return the folder in the user's cache that has the files of an archive.

    Nothing outside of this folder is written, whatever the names in the archive are. Raises
    `RecordError` for a file that is damaged, or that holds anything but records and files beside
    them.
    """
    import hashlib
    import shutil
    import tempfile

    try:
        content = read_regular(archive, MOST_PACKED)
    except OSError as error:
        raise RecordError(f"{archive} cannot be read: {error.strerror or error}") from error
    digest = hashlib.sha256(content).hexdigest()
    name = re.sub("[^A-Za-z0-9_.+-]", "_", archive.name.removesuffix(ENDING)).strip(".")
    folder = _root() / f"{name or 'records'}-{digest[:16]}"
    known = ARCHIVES.setdefault(folder.resolve(), [])
    if archive not in known:
        known.append(archive)
    if folder.is_dir():
        return folder
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder.parent))
        for member, data in _members(content, archive):
            path = temporary.joinpath(*PurePosixPath(member).parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        with suppress(OSError):  # another process was faster
            temporary.rename(folder)
    except OSError as error:
        raise RecordError(
            f"{archive} cannot be unpacked into {folder.parent}: {error.strerror or error}. Free "
            "some space, or set DEBIASBENCH_CACHE to another folder"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _members(content: bytes, archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each file; raises `RecordError`."""
    import lzma
    import tarfile

    files, total = 0, 0
    try:
        stream = io.BufferedReader(_Unpacking(content))
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if member.isdir():
                    continue
                files, total = files + 1, total + member.size
                fault = _fault(member.name) if member.isreg() else "is not that of a regular file"
                if fault:
                    raise RecordError(f"{archive} holds {shown(member.name)}, which {fault}")
                if total > MOST_BYTES or files > MOST_FILES:
                    raise RecordError(
                        f"{archive} holds more than {MOST_FILES:,} files or "
                        f"{readable_size(MOST_BYTES)}"
                    )
                data = tar.extractfile(member)
                assert data is not None
                yield member.name, data.read()
        if stream.read(tarfile.RECORDSIZE).strip(b"\0"):  # up to the check sum of xz
            raise RecordError(f"{archive} holds something after its files")
    except (lzma.LZMAError, tarfile.TarError, EOFError) as error:
        raise RecordError(f"{archive} is damaged or no archive of records ({error})") from error


def _fault(name: str) -> str:
    """Return what is wrong with the name of a file in an archive, or an empty string."""
    if not all(PART.fullmatch(part) for part in name.split("/")):
        return "has characters or parts that names in an archive must not have"
    return "" if name.endswith(ENDINGS) else f"does not end in {' or '.join(ENDINGS)}"


def _root() -> Path:
    """Return the folder of all unpacked archives."""
    if (cache := user_cache()) is not None:
        return cache / FOLDER
    import tempfile

    return Path(tempfile.gettempdir()) / f"debiasbench-{_user()}" / FOLDER


def _user() -> str:
    """Return a name for this user's folder where others have theirs."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "user"


class _Unpacking(io.RawIOBase):
    """Unpacks xz step by step, with limited memory."""

    def __init__(self, content: bytes) -> None:
        import lzma

        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)
        self._content = content

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._decompressor.eof:
            return 0
        data = self._decompressor.decompress(self._content, len(buffer))
        self._content = b""  # it is kept by the decompressor
        if not data and not self._decompressor.eof:
            raise EOFError("it ends too early")
        buffer[: len(data)] = data
        return len(data)

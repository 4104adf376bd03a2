"""The members of a gz file, a tar or a zip archive, described in one way."""

from __future__ import annotations

import gzip
import lzma
import posixpath
import stat
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Literal

from debiasbench.common.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from debiasbench.core.download import Download

LONGEST_LINK = 4096  # bytes of a path on Linux
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    ValueError,
)


class ArchiveError(DataError):
    """An archive is damaged, or would write outside its folder."""


@dataclass(frozen=True)
class Member:
    """One entry of an archive.

    `size`: bytes, None if unknown before reading. `link`: the target of a link, as a path from the
    top of the archive.
    """

    name: str
    kind: Literal["file", "folder", "link", "other"]
    size: int | None
    open: Callable[[], IO[bytes] | gzip.GzipFile | None]
    link: str = ""


@contextmanager
def members(download: Download, archive: Path) -> Iterator[Sequence[Member]]:
    """List the members of an archive; they can be read until the context ends.

    Whatever the archive readers raise within the context becomes an `ArchiveError`.
    """
    try:
        if download.unpack == "gz":
            yield [Member(download.stem, "file", None, partial(gzip.open, archive))]
        elif download.unpack == "tar":
            with tarfile.open(archive) as tar:
                yield [_of_tar(tar, info) for info in tar]
        else:
            with zipfile.ZipFile(archive) as zipped:
                yield [_of_zip(zipped, info) for info in zipped.infolist()]
    except (*DAMAGE, OSError) as error:
        # errors of the disk have a number, those of gzip and bz2 have none
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ArchiveError(
            f"{archive} is damaged ({error}). Remove it if it still exists, and download it again"
        ) from error


def _of_tar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    content = partial(tar.extractfile, info)
    if info.isreg():
        return Member(info.name, "file", info.size, content)
    if info.issym():
        return Member(info.name, "link", 0, content, _target(info.name, info.linkname))
    if info.islnk():
        return Member(info.name, "link", 0, content, info.linkname)
    return Member(info.name, "folder" if info.isdir() else "other", 0, content)


def _of_zip(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    content = partial(zipped.open, info)
    # the upper half holds a Unix mode; 0 if the archive was made on another system
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.is_dir():
        return Member(info.filename, "folder", 0, content)
    if kind in (0, stat.S_IFREG):
        return Member(info.filename, "file", info.file_size, content)
    if kind == stat.S_IFLNK and info.file_size <= LONGEST_LINK:
        link = zipped.read(info).decode()
        return Member(info.filename, "link", 0, content, _target(info.filename, link))
    return Member(info.filename, "other", 0, content)


def _target(name: str, link: str) -> str:
    """Return the target of the symbolic link `name`, as a path from the top of its archive."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), link))

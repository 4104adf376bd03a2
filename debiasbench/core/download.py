"""What a data set declares about a file to download: its sources, digest and contents."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from debiasbench.common.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True)
class Download:
    """A file to download, its sources, and the files that exist under the data root afterwards.

    Paths are relative to the data root, use forward slashes and contain no `..`.
    `path`: where the downloaded file is stored. An archive is deleted after it is unpacked, unless
    the user put it there.
    `urls`: sources of the same file, tried in order; https://, or file:// on this machine.
    `gives`: files that exist afterwards; nothing is downloaded if all of them exist. Required for
    "tar" and "zip". By default the file itself, without its `.gz` if it is unpacked.
    `sha256`: digest of the downloaded file, in lower-case hex. `size`: its exact size in bytes.
    `unpack`: "gz" for one compressed file, "tar" (compressed or not) and "zip" for archives.
    `into`: the folder to unpack into; by default the folder of `path`.
    `unpacked`: upper bound for the size of the contents in bytes; None if unknown.

    Raises `DataError` for a path outside the data root or a source that is not trusted.
    """

    path: str
    urls: tuple[str, ...]
    gives: tuple[str, ...] = ()
    sha256: str | None = None
    size: int | None = None
    unpack: Literal["gz", "tar", "zip"] | None = None
    into: str | None = None
    unpacked: int | None = None

    def __post_init__(self) -> None:
        if self.into is None:
            object.__setattr__(self, "into", posixpath.dirname(self.path))
        if not self.gives and self.unpack is None:
            object.__setattr__(self, "gives", (self.path,))
        if not self.gives and self.unpack == "gz":
            object.__setattr__(self, "gives", (posixpath.join(self.into or "", self.stem),))
        if not self.gives:
            raise DataError(
                f"Download {self.path!r} does not list the files in the archive: set gives=(...)"
            )
        for name in (self.path, *self.gives, *([self.into] if self.into else [])):
            if not name or normal_name(name) != name:
                raise DataError(
                    f"Download path {name!r} must be relative to the data root, without . and .."
                )
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise DataError(
                f"Download {self.path!r}: sha256={self.sha256!r} is not a SHA-256 digest of 64 "
                "lower-case hex digits"
            )
        for url in self.urls:
            if not is_trusted(url):
                raise DataError(f"Download source {url!r} must start with https:// or file://")

    @property
    def stem(self) -> str:
        """Name of the file, without its `.gz`."""
        return posixpath.basename(self.path).removesuffix(".gz")

    def is_there(self, root: Path) -> bool:
        """Return whether all files in `gives` exist under the data root."""
        return not self.missing(root)

    def missing(self, *folders: Path) -> list[str]:
        """Return the files in `gives` that exist under none of the folders."""
        return [name for name in self.gives if not any((f / name).exists() for f in folders)]


def normal_name(name: str) -> str | None:
    """Return a relative name without `.` and doubled slashes, or None if it leaves its folder."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    # backslashes and drive letters are dangerous on Windows only, but no data set needs them
    if name.startswith("/") or "\\" in name or ".." in parts or re.match("[A-Za-z]:", name):
        return None
    return "/".join(parts)


def is_trusted(url: str) -> bool:
    """Return whether a file from this source cannot be changed in transit."""
    parts = urlsplit(url)
    return parts.scheme in ("https", "file") or (
        parts.scheme == "http" and parts.hostname in LOOPBACK
    )

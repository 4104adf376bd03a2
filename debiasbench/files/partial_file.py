"""A file that is still being downloaded: the bytes so far, their version, and the final check."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

    from debiasbench.core.download import Download


class MismatchError(Exception):
    """A file is not the one that the `Download` declares."""


@dataclass(frozen=True)
class PartialFile:
    """The bytes downloaded so far, and a note beside them with their source and version."""

    path: Path

    @property
    def note(self) -> Path:
        """Where source and version are noted."""
        return self.path.with_name(f"{self.path.name}.from")

    @property
    def size(self) -> int:
        """Number of bytes downloaded so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self, url: str) -> str | None:
        """Return the ETag or date of the bytes, if they came from this source."""
        try:
            source, version = self.note.read_text("utf-8").splitlines()
        except (OSError, ValueError):
            return None
        return version if source == url else None

    def reusable(self, download: Download, url: str) -> int:
        """Return how many bytes can be kept: without a digest, only those of a known version."""
        is_known = download.sha256 is not None or self.version(url) is not None
        return self.size if is_known else 0

    def begin(self, url: str, headers: Message) -> None:
        """Start again from zero, and note source and version before the first byte is written."""
        self.remove()
        etag = headers.get("ETag", "")
        # a weak ETag does not promise identical bytes
        version = headers.get("Last-Modified") if etag.startswith("W/") or not etag else etag
        if version:
            self.note.write_text(f"{url}\n{version}\n", "utf-8")

    def remove(self) -> None:
        """Delete the bytes and the note."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def rename_to(self, file: Path) -> None:
        """Give the complete file its final name, after its bytes are safely on the disk."""
        with self.path.open("rb") as content:
            os.fsync(content.fileno())
        self.path.replace(file)
        self.note.unlink(missing_ok=True)


def verify(download: Download, file: Path) -> None:
    """Raise `MismatchError` if the size or the digest of a file is not the declared one."""
    if not file.is_file():
        raise MismatchError("is not a regular file")
    size = file.stat().st_size
    if download.size not in (None, size):
        raise MismatchError(f"has {size:,} bytes instead of {download.size:,}")
    if download.sha256 is None:
        return
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != download.sha256:
        raise MismatchError(f"has SHA-256 {digest} instead of {download.sha256}")

"""A folder that holds a site and nothing else: what is written, and what is removed."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from debiasbench.common.errors import StoreError
from debiasbench.common.regular import read_regular
from debiasbench.records.store import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MANIFEST = "manifest.json"  # path of each file -> its SHA-256
_OURS = re.compile(r"((d|m|r|data)/)?[a-z0-9][A-Za-z0-9_.-]*")  # what a site may hold


class Folder:
    """Writes the files of a site; see `finish`.

    Raises `StoreError` for a folder that has files and no manifest, because it is not a site.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = self._read_manifest()
        self._written: dict[str, str] = {}
        self._begin()

    def write(self, name: str, content: bytes) -> None:
        """Write a file, unless it has this content already. Raises `StoreError`."""
        if not _OURS.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a file of a site")
        digest = hashlib.sha256(content).hexdigest()
        self._written[name] = digest
        path = self._path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if self._before.get(name) == digest and _content(path) == content:
                return
            # not synced: after a power failure the site is made again, and each sync takes 30 ms
            temporary = path.with_name(f".{path.name}.new")
            temporary.write_bytes(content)
            temporary.replace(path)
        except OSError as error:
            raise StoreError(f"Cannot write {path}: {error.strerror or error}") from error

    def written(self, names: Iterable[str]) -> dict[str, str]:
        """Return the SHA-256 of files that were written, for `include`."""
        return {name: self._written[name] for name in names}

    def include(self, written: Mapping[str, str]) -> None:
        """Count files that another process wrote into the same folder as those of the site."""
        self._written |= written

    def _begin(self) -> None:
        """Write a manifest, so that a site that was interrupted can be made again."""
        if not (self._path / MANIFEST).exists():
            try:
                self._path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"Cannot write {self._path}: {error.strerror}") from error
            write_bytes(self._path / MANIFEST, b"{}\n")

    def finish(self) -> int:
        """Remove the files of an earlier site, and write the manifest; return the number of files.

        Only files that the manifest of the earlier site names are removed.
        """
        for name in self._before.keys() - self._written.keys() - {MANIFEST}:
            if _OURS.fullmatch(name):
                (self._path / name).unlink(missing_ok=True)
        text = json.dumps(self._written, indent=0, sort_keys=True) + "\n"
        write_bytes(self._path / MANIFEST, text.encode())
        return len(self._written) + 1

    def _read_manifest(self) -> dict[str, str]:
        try:
            if not self._path.exists() or not any(self._path.iterdir()):
                return {}
            found = json.loads(read_regular(self._path / MANIFEST).decode())
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{self._path} holds something other than a site ({error}). Choose an empty folder"
            ) from error
        if not isinstance(found, dict):
            raise StoreError(
                f"{self._path} holds something other than a site. Choose an empty folder"
            )
        return {str(name): str(digest) for name, digest in found.items()}


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None

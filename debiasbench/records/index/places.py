"""Where indexes are: one file for each folder of records, in the user's cache."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from debiasbench.common.folders import entries
from debiasbench.common.user_cache import user_cache
from debiasbench.records.index.columns import Damaged, about

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER = "indexes"
ENDING = ".npz"
BOARDS = ".boards"  # ending of the folder of the boards that were made from an index
LEFT = ".new"  # ending of a file that is being written
OLD = 86_400.0  # seconds; writing a file never takes as long

ROOT = Path(__file__).parents[2]
CODE = (  # what reads and verifies records
    "records",
    "specs/spec.py",
    "core/supervision.py",
    "common/canonical.py",
    "common/regular.py",
)


@dataclass(frozen=True)
class Kept:
    """An index on disk. `place`: the folder of its records, "" if the file is damaged."""

    path: Path
    place: str
    records: int
    bytes: int
    used: float  # seconds since 1970 at which it was written


def path_of(place: str) -> Path | None:
    """Return the file of the index of a folder, given by its real path; None without a cache."""
    root = user_cache()
    if root is None:
        return None
    name = hashlib.sha256(os.fsencode(place)).hexdigest()[:32]
    return root / FOLDER / f"{name}{ENDING}"


def boards_of(place: str) -> Path | None:
    """Return the folder of the boards that were made from an index; None without a cache."""
    index = path_of(place)
    return None if index is None else _boards(index)


def _boards(index: Path) -> Path:
    return index.with_suffix(BOARDS)


def kept() -> list[Kept]:
    """Return all indexes, sorted by the names of their folders."""
    found = []
    for path in _files(ENDING):
        with suppress(OSError):
            status = path.stat()
            try:
                head = about(path)
            except Damaged:
                head = {}
            place, records = str(head.get("place", "")), int(head.get("records", 0))
            size = status.st_size + sum(file.stat().st_size for file in _all(_boards(path)))
            found.append(Kept(path, place, records, size, status.st_mtime))
    return sorted(found, key=lambda one: (one.place, one.path))


def remove(*, only_orphans: bool = False) -> list[Kept]:
    """Remove all indexes, and return them. `only_orphans`: only those without their folder.

    What processes that were killed have left is removed, too.
    """
    removed = []
    for path in _files(LEFT):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > OLD:
                path.unlink()
    for folder in _files(BOARDS):
        if not folder.with_suffix(ENDING).exists():
            _remove_boards(folder)
    for one in kept():
        if only_orphans and Path(one.place).is_dir() and one.place:
            continue
        with suppress(OSError):
            one.path.unlink()
            removed.append(one)
            _remove_boards(_boards(one.path))
    return removed


def _remove_boards(folder: Path) -> None:
    with suppress(OSError):
        for file in _all(folder):
            file.unlink()
        folder.rmdir()


def _all(folder: Path) -> list[Path]:
    try:
        return [Path(entry) for entry in entries(folder)]
    except OSError:
        return []


def _files(ending: str) -> list[Path]:
    root = user_cache()
    if root is None:
        return []
    try:
        return [Path(e) for e in entries(root / FOLDER) if e.name.endswith(ending)]
    except OSError:
        return []


@cache
def version() -> str:
    """Return the digest of the code that reads and verifies, so that new checks see old files.

    Raises `OSError` where the source code is not at hand.
    """
    return digest_of(CODE)


def digest_of(code: Iterable[str], more: bytes = b"") -> str:
    """Return the digest of files and folders of source code, of numpy's version and of `more`."""
    digest = hashlib.sha256(f"{np.__version__.split('.')[0]}".encode() + more)
    for name in code:
        path = ROOT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()

"""Where indexes are: one file for each folder of records, in the user's cache."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from debiasbench.common.folders import entries
from debiasbench.common.user_cache import user_cache
from debiasbench.records.index.columns import Damaged, about

FOLDER = "indexes"
ENDING = ".npz"
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
            found.append(Kept(path, place, records, status.st_size, status.st_mtime))
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
    for one in kept():
        if only_orphans and Path(one.place).is_dir() and one.place:
            continue
        with suppress(OSError):
            one.path.unlink()
            removed.append(one)
    return removed


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
    digest = hashlib.sha256(f"{np.__version__.split('.')[0]}".encode())
    for name in CODE:
        path = ROOT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()

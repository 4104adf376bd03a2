"""Classes and groups of samples, which all records on the same data must share (E03).

A reference is a safetensors file with "val.y", "val.group", "test.y", "test.group", and "train.y"
and "train.group" where known, named by the fingerprint of the data, in a folder `references` beside
the records or above them.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.common.errors import RecordError, StoreError
from debiasbench.common.regular import read_regular
from debiasbench.records.beside import around

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from debiasbench.records.record import Record

    Stored = Mapping[str, NDArray[Any]]

FOLDER = "references"
ENDING = ".safetensors"
NAMES = tuple(f"{split}.{label}" for split in ("train", "val", "test") for label in ("y", "group"))
MOST_BYTES = 64 << 20
_FINGERPRINT = re.compile(r"[0-9a-zA-Z_-]{1,128}")


class Labels:
    """Compares the labels of records with the reference of their data, or with the first record.

    `folder`: of references; None looks for a folder `references` beside and above each record.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[tuple[Path | None, str], dict[str, bytes]] = {}
        self._first: dict[tuple[Path | None, str], dict[str, str]] = {}
        self._folders: dict[Path, Path | None] = {}

    def differing(self, path: Path, record: Record, stored: Stored) -> str | None:
        """Say which labels beside a record are not those of its data, None if all are."""
        return self.differing_digests(path, record.task.fingerprint, digests(stored))

    def differing_digests(
        self, path: Path, fingerprint: str, labels: Mapping[str, bytes]
    ) -> str | None:
        """Return what `differing` does, from the `digests` of the labels beside a record."""
        folder = self._folder or self._beside(path.parent)
        key = folder, fingerprint
        if key not in self._known:
            reference = None if folder is None else read(folder, fingerprint)
            self._known[key] = {} if reference is None else digests(reference)
            self._first[key] = dict.fromkeys(self._known[key], "the reference")
        known, origin = self._known[key], self._first[key]
        for name, digest in labels.items():
            if known.setdefault(name, digest) != digest:
                return f"{name} is not that of {origin[name]} on the data {fingerprint}"
            origin.setdefault(name, path.name)
        return None

    def _beside(self, folder: Path) -> Path | None:
        if folder not in self._folders:
            self._folders[folder] = near(folder)
        return self._folders[folder]


def near(folder: Path) -> Path | None:
    """Return the folder of references beside or above a folder of records, or None."""
    found = (place / FOLDER for place in around(folder) if (place / FOLDER).is_dir())
    return next(found, None)


def read(folder: Path, fingerprint: str) -> Stored | None:
    """Return the reference of a data set, None if there is none; raises `RecordError`."""
    if not _FINGERPRINT.fullmatch(fingerprint):
        return None
    from safetensors.numpy import load

    file = folder / f"{fingerprint}{ENDING}"
    try:
        return dict(load(read_regular(file, MOST_BYTES)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever the reader raises for a file that somebody made
        raise RecordError(f"{file} is not a file of labels ({error})") from error


def digests(stored: Stored) -> dict[str, bytes]:
    """Return a digest of the classes and of the groups of each split."""
    return {
        name: hashlib.sha256(values.astype("<u4").tobytes()).digest()
        for name in NAMES
        if (values := stored.get(name)) is not None and values.dtype.kind in "ui"
    }


def _small(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


class Collected:
    """Collects the labels of records by the fingerprint of their data, to write references."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, NDArray[Any]]] = {}

    def add(self, record: Record, stored: Stored) -> None:
        """Add the labels beside a record that does not contradict itself or others."""
        known = self._found.setdefault(record.task.fingerprint, {})
        if len(known) < len(NAMES):
            known |= {n: _small(stored[n]) for n in NAMES if n in stored and n not in known}

    def write(self, folder: Path) -> list[Path]:
        """Write the references that are new or know more than before; return their paths.

        Raises `StoreError`, and `RecordError` for a reference with other labels.
        """
        from safetensors.numpy import save

        from debiasbench.records.store import write_bytes

        written = []
        for fingerprint, labels in sorted(self._found.items()):
            before = read(folder, fingerprint) or {}
            old, new = digests(before), digests(labels)
            file = folder / f"{fingerprint}{ENDING}"
            if wrong := [name for name in old if new.get(name, old[name]) != old[name]]:
                raise RecordError(f"{file} has another {wrong[0]} than the records. Remove one")
            if new.keys() <= old.keys() or not _FINGERPRINT.fullmatch(fingerprint):
                continue
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"Cannot write {folder}: {error.strerror or error}") from error
            write_bytes(file, save({**labels, **before}))
            written.append(file)
        return written

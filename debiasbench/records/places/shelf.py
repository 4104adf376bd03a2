"""What copying needs of a place: a listing, files by name, and a record written at once."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from debiasbench.specs.spec import Spec

SEARCH = "search"  # a folder of searches for options, whose files are no records
DIGITS = frozenset("0123456789abcdef")


class Item(NamedTuple):
    """A file of a place: its name from the place on, its size, and its MD5 if a listing has it."""

    name: str
    size: int
    md5: str = ""


class Changed(Exception):  # noqa: N818 - it never leaves this package
    """Another process has written a file since it was looked for."""


@dataclass
class Listing:
    """The files of a place when they were listed, by name."""

    items: dict[str, Item] = field(default_factory=dict)
    _by_id: dict[str, list[str]] = field(default_factory=dict)

    def add(self, item: Item) -> None:
        """Add a file."""
        self.items[item.name] = item
        if is_record(item.name) and (own := id_in(item.name)):
            self._by_id.setdefault(own, []).append(item.name)

    def records(self) -> list[Item]:
        """Return the files that may be records, in order of their names."""
        return [self.items[name] for name in sorted(self.items) if is_record(name)]

    def of(self, spec_id: str) -> list[str]:
        """Return the names of files that may be the record of an id."""
        return list(self._by_id.get(spec_id, ()))


def is_record(name: str) -> bool:
    """Say whether a file may be a record by its name, which begins at the place."""
    of_search = name.startswith(f"{SEARCH}/") or name.endswith((".trial.json", ".search.json"))
    return name.endswith(".json") and not of_search


def id_in(name: str) -> str:
    """Return the id at the end of the name of a record, "" if there is none.

    It only says where to look; what a file is follows from its content.
    """
    digits = name.removesuffix(".json").rpartition("-")[2]
    return digits if len(digits) == 16 and DIGITS.issuperset(digits) else ""


def md5(content: bytes) -> str:
    """Return the digest by which object stores list their files; nothing relies on it alone."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class Shelf(Protocol):
    """A place of records. All methods raise `StoreError`, and may be called from any thread."""

    title: str

    def listing(self) -> Listing:
        """List all files; an empty listing if the place does not exist yet."""

    def exists(self) -> bool:
        """Return whether there is such a place."""

    def read(self, name: str, most: int | None = None) -> bytes:
        """Return the content of a file of at most `most` bytes; raises `RecordError`."""

    def local(self, name: str, spool: Path) -> Path:
        """Return a local file with the content of a file; `spool` is where it may be written."""

    def spool(self, name: str) -> Path:
        """Return a local path from which `write` takes a file of this name without a copy."""

    def write(self, name: str, content: bytes | Path, *, new: bool) -> None:
        """Write a file completely or not at all; a reader never sees a part of it.

        `new`: raise `Changed` if it exists.
        """

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""

    def holding(self, spec: Spec) -> AbstractContextManager[None]:
        """Keep others from writing the record of a spec, where that is possible.

        Raises `BusyError` while another process runs the spec.
        """

    def finish(self) -> None:
        """Complete what `write` has begun."""

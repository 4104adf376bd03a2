"""Which records a store holds: chosen by method, data set, seed or id, and removed."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError, StoreError
from debiasbench.common.names import IMPORTED
from debiasbench.common.wording import counted, shown
from debiasbench.records.archive import is_unpacked
from debiasbench.records.beside import PREDICTIONS, WEIGHTS
from debiasbench.records.reading import TRIAL, read, read_visited, visited
from debiasbench.records.record import Record
from debiasbench.records.store import Store

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from debiasbench.records.record import Result

SHORTEST = 4  # digits that may stand for an id


@dataclass(frozen=True)
class Choice:
    """Which records: those that match everything that is given.

    `ids`: ids or their first digits, or paths of files. `seeds`: None for all.
    """

    ids: tuple[str, ...] = ()
    method: str | None = None
    dataset: str | None = None
    seeds: Collection[int] | None = None
    failed: bool = False

    @property
    def is_all(self) -> bool:
        """Say whether nothing is given, so that every record is chosen."""
        return self == Choice()

    def has(self, record: Record) -> bool:
        """Say whether a record matches, apart from its id."""
        spec = record.spec
        return (
            self.method in {None, spec.method.name}
            and self.dataset in {None, spec.dataset.name, spec.dataset.name.removeprefix(IMPORTED)}
            and (self.seeds is None or spec.seed in self.seeds)
            and (not self.failed or record.status == "failed")
        )


def one(place: Path, name: str) -> tuple[Path, Record]:
    """Return the record that an id, its first digits or a path names, with its path.

    Raises `RecordError` if there is none, and if there are several.
    """
    found = list(named(place, name))
    if len(found) == 1:
        return found[0]
    if not found:
        raise _missing(place, name)
    paths = ", ".join(str(path) for path, _ in found[:4])
    raise RecordError(
        f"{shown(name)} stands for {len(found)} records: {paths}{', ...' if len(found) > 4 else ''}"
        ". Give more digits, or a file"
    )


def _missing(place: Path, name: str) -> RecordError:
    return RecordError(
        f"There is no record {shown(name)} in {place}: give a file, or an id or at least "
        f"{SHORTEST} digits of it. `debiasbench results ls {place}` lists them"
    )


def named(place: Path, name: str) -> Iterator[tuple[Path, Record]]:
    """Yield the records that an id, its first digits or a path names.

    Raises `RecordError` for a file that is no record, and for a name that is too short.
    """
    if name.endswith(".json") or os.sep in name:
        yield Path(name), read(Path(name))
        return
    if len(name) < SHORTEST or set(name) - set("0123456789abcdef"):
        raise RecordError(
            f"{shown(name)} is neither a file nor an id, which has {SHORTEST} to 16 digits 0 to f"
        )
    problems: list[str] = []
    files = list(visited([place], problems))
    # the names of files end with the id, unless somebody has renamed them
    likely = [one for one in files if one.name.rpartition("-")[2].startswith(name)]
    for some in (likely, files):
        matching = []
        for one in some:
            record = read_visited(one, problems)
            if record is not None and record.id.startswith(name):
                matching.append((Path(one.file), record))
        if matching:
            yield from matching
            return


def chosen(place: Path, choice: Choice, problems: list[str]) -> list[tuple[Path, Record]]:
    """Return the records of a folder that are chosen, in order of their files.

    Adds a message to `problems` for each file that cannot be read. Raises `RecordError` for an id
    without a record.
    """
    if choice.ids:
        found: dict[Path, Record] = {}
        for name in choice.ids:
            of_name = list(named(place, name))
            if not of_name:
                raise _missing(place, name)
            found |= dict(of_name)
        return [(path, record) for path, record in found.items() if choice.has(record)]
    records = []
    for file in visited([place], problems):
        record = read_visited(file, problems)
        if record is not None and choice.has(record):
            records.append((Path(file.file), record))
    return records


def files(path: Path, record: Result) -> list[Path]:
    """Return the files of a record or trial that exist: its own, then predictions and weights.

    Only those that have the name of the record, whatever file it says that it has.
    """
    beside = []
    weights = record.weights if isinstance(record, Record) else None
    for entry, ending in ((record.predictions, PREDICTIONS), (weights, WEIGHTS)):
        expected = path.with_name(path.name.removesuffix(TRIAL).removesuffix(".json") + ending)
        if entry is not None and Path(entry["file"]).name == expected.name:
            beside.append(expected)
    return [path, *(file for file in beside if file.is_file() or file.is_symlink())]


def remove(path: Path, record: Record) -> list[Path]:
    """Remove a record and its files; return them. A link is removed, not what it leads to.

    Raises `BusyError` if its spec is being run, `RecordError` if it has changed, and `StoreError`.
    """
    if is_unpacked(path):
        raise RecordError(
            f"{path.name} is in an archive, which is not changed: pack the others again"
        )
    with Store(path.parent).claim(record.spec):
        if repr(read(path)) != repr(record):  # NaN differs from itself
            raise RecordError(f"{path} has changed since it was listed, so it was not removed")
        removed = []
        for file in files(path, record):
            try:
                file.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError(f"Cannot remove {file}: {error.strerror or error}") from error
            removed.append(file)
    return removed


def weight(paths: Iterable[Path]) -> int:
    """Return how many bytes files have."""
    total = 0
    for path in paths:
        with suppress(OSError):
            total += path.lstat().st_size
    return total


def summary(records: int, paths: Collection[Path]) -> str:
    """Write how many records and files there are, and their size."""
    size = f"{weight(paths) / 1e6:,.1f} MB"
    return f"{counted(records, 'record')}, {counted(len(paths), 'file')}, {size}"

"""Reading records from files and folders, whatever else is in them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from debiasbench.common.errors import RecordError
from debiasbench.common.regular import read_regular
from debiasbench.common.wording import shortened
from debiasbench.records.archive import with_archives
from debiasbench.records.listing import listing
from debiasbench.records.record import Record, from_json
from debiasbench.records.sharing import Sharing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TRIAL, SEARCH = ".trial.json", ".search.json"  # endings of files of searches, which are no records
MOST_BYTES = 64 << 20  # of a record file; the published ones have 10,000 to 60,000


def read(path: Path) -> Record:
    """Read a record file; raises `RecordError` with its name."""
    try:
        return from_json(read_regular(path, MOST_BYTES).decode())
    except RecordError as error:
        raise RecordError(f"{path} {shortened(str(error), 600)}") from error
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} cannot be read: {shortened(str(error))}") from error


def read_all(places: Iterable[Path]) -> tuple[list[tuple[Path, Record]], list[str]]:
    """Read every record in files and folders; return them and a message for each bad file.

    Folders are searched recursively; hidden files and folders are skipped, and so are the trials
    of searches.
    Raises `RecordError` for a place that does not exist.
    """
    problems: list[str] = []
    return list(stream(places, problems)), problems


def stream(
    places: Iterable[Path], problems: list[str], searches: list[str] | None = None
) -> Iterator[tuple[Path, Record]]:
    """Yield what `read_all` returns, one record after the other.

    Adds a message to `problems` for each bad file, and for each folder that cannot be searched, and
    to `searches` each file of a search. Records of the same task share one object for it.
    """
    sharing = Sharing()
    for found in visited(places, problems, searches):
        if (record := read_visited(found, problems)) is not None:
            yield Path(found.file), replace(record, task=sharing.task(record.task))


class Visited(NamedTuple):
    """A file that may be a record: its path, and its name within a folder that was given.

    `place`: the number of that folder; -1 for a file that was given itself.
    """

    file: str
    name: str
    place: int


def visited(
    places: Iterable[Path], problems: list[str], searches: list[str] | None = None
) -> Iterator[Visited]:
    """Yield each file that `stream` reads, in order of their names; each file is yielded once.

    Adds each file of a search to `searches`, once. Raises `RecordError` for a place that does not
    exist.
    """
    places = list(places)
    for place in places:
        try:
            place.stat()
        except OSError as error:
            reason = "" if isinstance(error, FileNotFoundError) else f" ({error.strerror})"
            raise RecordError(
                f"No results at {place}{reason}: give a record or a folder of records"
            ) from error
    seen: set[str] = set()  # real paths
    for number, place in enumerate(with_archives(places)):
        for found, real in _files(place, number, problems):
            if real in seen:
                continue
            seen.add(real)
            if not found.name.endswith((TRIAL, SEARCH)):
                yield found
            elif found.name.endswith(TRIAL):
                if found.place < 0:
                    problems.append(f"{found.file} is a trial: give the folder, or its search")
            elif searches is not None:
                searches.append(found.file)


def read_visited(found: Visited, problems: list[str]) -> Record | None:
    """Read a file; add a message to `problems` and return None if it is no record."""
    file = Path(found.file)
    try:
        return read(file)
    except RecordError as error:
        if file.exists() or file.is_symlink():  # another process may have removed it
            problems.append(str(error))
        return None


def _files(place: Path, number: int, problems: list[str]) -> Iterator[tuple[Visited, str]]:
    """Yield each file to read with its real path, in order of their names."""
    if not place.is_dir():
        yield Visited(str(place), place.name, -1), os.path.realpath(place)
        return
    top = "" if str(place) == "." else f"{str(place).rstrip(os.sep)}{os.sep}"
    for folder, names, links in listing(place, problems):
        real = os.path.realpath(folder)
        base = "" if folder == "." else f"{folder.rstrip(os.sep)}{os.sep}"
        for name in names:
            file = f"{base}{name}"
            to = os.path.realpath(file) if name in links else f"{real}{os.sep}{name}"
            yield Visited(file, file[len(top) :], number), to

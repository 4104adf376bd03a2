"""Reading records from files and folders, whatever else is in them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError
from debiasbench.common.regular import read_regular
from debiasbench.common.wording import shortened
from debiasbench.records.record import Record, from_json
from debiasbench.records.sharing import Sharing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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

    Folders are searched recursively; hidden files and folders are skipped.
    Raises `RecordError` for a place that does not exist.
    """
    problems: list[str] = []
    return list(stream(places, problems)), problems


def stream(places: Iterable[Path], problems: list[str]) -> Iterator[tuple[Path, Record]]:
    """Yield what `read_all` returns, one record after the other.

    Adds a message to `problems` for each bad file, and for each folder that cannot be searched.
    Records of the same task share one object for it.
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
    sharing = Sharing()
    seen: set[str] = set()  # real paths: each file is read once
    for place in places:
        for file, real in _files(place, problems):
            if real in seen:
                continue
            seen.add(real)
            try:
                record = read(file)
            except RecordError as error:
                if file.exists() or file.is_symlink():  # another process may have removed it
                    problems.append(str(error))
            else:
                yield file, replace(record, task=sharing.task(record.task))


def _files(place: Path, problems: list[str]) -> Iterator[tuple[Path, str]]:
    """Yield the path and the real path of each file to read, in order of their names."""
    if not place.is_dir():
        yield place, os.path.realpath(place)
        return

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            problems.append(f"{error.filename} cannot be searched: {error.strerror}")

    found: list[tuple[Path, str]] = []
    for folder, inner, names in os.walk(place, onerror=unreadable):
        inner[:] = [name for name in inner if not name.startswith(".")]
        real = os.path.realpath(folder)
        for name in names:
            if name.endswith(".json") and not name.startswith("."):
                file = Path(folder, name)
                to = os.path.realpath(file) if file.is_symlink() else f"{real}{os.sep}{name}"
                found.append((file, to))
    yield from sorted(found, key=lambda one: one[0].parts)

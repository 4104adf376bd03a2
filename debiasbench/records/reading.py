"""Reading records from files and folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError
from debiasbench.records.record import Record, from_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def read(path: Path) -> Record:
    """Read a record file; raises `RecordError` with its name."""
    try:
        return from_json(path.read_text("utf-8"))
    except RecordError as error:
        raise RecordError(f"{path} {error}") from error
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} cannot be read: {error}") from error


def read_all(places: Iterable[Path]) -> tuple[list[tuple[Path, Record]], list[str]]:
    """Read every record in files and folders; return them and a message for each bad file.

    Folders are searched recursively; hidden files and folders are skipped.
    Raises `RecordError` for a place that does not exist.
    """
    records: dict[Path, tuple[Path, Record]] = {}  # by resolved path: each file once
    problems: list[str] = []
    for place in places:
        if not place.exists():
            raise RecordError(f"No results at {place}: give a record or a folder of records")
        files = sorted(place.rglob("*.json")) if place.is_dir() else [place]
        for file in files:
            hidden = any(part.startswith(".") for part in file.relative_to(place).parts)
            if file.resolve() in records or hidden:
                continue
            try:
                records[file.resolve()] = (file, read(file))
            except RecordError as error:
                problems.append(str(error))
    return list(records.values()), problems

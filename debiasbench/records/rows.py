"""A list of the rows that were published, so that none of them disappears unnoticed.

A line names the data, the network and the method with their options, as canonical JSON. Ids are not
in it, since records are made again with newer code.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import RecordError
from debiasbench.common.regular import read_regular
from debiasbench.records.reading import stream
from debiasbench.records.store import write_text
from debiasbench.records.trust import withdrawn_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from debiasbench.specs.spec import Spec

MOST_BYTES = 64 << 20


def row(spec: Spec) -> str:
    """Return the line of a spec, which does not depend on its seed, training or revisions."""
    parts = {"dataset": spec.dataset, "model": spec.model, "method": spec.method}
    if spec.sparse is not None:
        parts["sparse"] = spec.sparse
    return canonical({kind: {part.name: part.options} for kind, part in parts.items()})


def rows(places: Iterable[Path]) -> set[str]:
    """Return the rows of all records that can be read in files and folders."""
    return {row(record.spec) for _, record in stream(places, [])}


def lost(file: Path, places: Iterable[Path]) -> list[str]:
    """Return the rows of a list that have no record and were not withdrawn.

    A withdrawn row that has no record left is listed in `withdrawn.toml` under its line. A file
    that does not exist has no rows. Raises `RecordError`.
    """
    places = list(places)
    gone = withdrawn_of([*places, file])
    there = rows(places)
    return [line for line in listed(file) if line not in there and line not in gone]


def added(file: Path, places: Iterable[Path]) -> list[str]:
    """Add the rows that a list does not have to it; return them. Raises `StoreError`."""
    before = listed(file)
    new = sorted(rows(places) - set(before))
    if new:
        write_text(file, "".join(f"{line}\n" for line in sorted([*before, *new])))
    return new


def listed(file: Path) -> list[str]:
    """Return the rows of a list; raises `RecordError`."""
    try:
        text = read_regular(file, MOST_BYTES).decode()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{file} is not a text file in UTF-8 ({error})") from error
    lines = [line for line in text.splitlines() if line.strip()]
    for line in lines:
        try:
            is_row = isinstance(json.loads(line), dict)
        except ValueError:
            is_row = False
        if not is_row:
            raise RecordError(f"{file} is not a list of rows: {line[:80]!r}")
    return lines

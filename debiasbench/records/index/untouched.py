"""A folder of which no file has changed since its index was written, without its records."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.records.index.columns import Columns, Damaged
from debiasbench.records.index.folder import ABSENT, state
from debiasbench.records.index.places import path_of, version
from debiasbench.records.index.rows import Rows
from debiasbench.records.listing import listing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from debiasbench.records.checks.labels import Labels
    from debiasbench.records.index.rows import Bad


@dataclass(frozen=True)
class Unchanged:
    """The records of a folder, in order of their files, as its index knows them.

    `ids`, `files`, `unverified`: of each. `states`: (R, 8) of its file and its predictions.
    `boards`: (R,) numbers in `parts`, which `writing.board` made. `problems`: a message for each
    file that contradicts itself.
    """

    ids: Sequence[str]
    files: Sequence[str]
    unverified: Sequence[bool]
    states: NDArray[np.int64]
    boards: NDArray[np.int64]
    parts: Sequence[dict[str, Any]]
    problems: list[str]


def unchanged(place: Path, labels: Labels) -> Unchanged | None:
    """Return the records of a folder from its index; None if any file must be read.

    A file must be read if it is new, if its state or that of its predictions has changed, if it is
    a link, if another file has the same id, and if labels differ; see `Index.match`.
    """
    real = os.path.realpath(place)
    path = path_of(real)
    if path is None or not path.exists():
        return None
    try:
        columns = Columns(path)
        try:
            rows = Rows.read(columns, real, version())
            return _compared(place, rows, labels)
        finally:
            columns.close()
    except (Damaged, OSError):
        return None


def _compared(place: Path, rows: Rows, labels: Labels) -> Unchanged | None:
    problems: list[str] = []
    parts = listing(place, problems)
    number = sum(len(names) for _, names, _ in parts)
    if problems or any(links for *_, links in parts) or number != len(rows) + len(rows.bad):
        return None
    top = len("" if str(place) == "." else f"{str(place).rstrip(os.sep)}{os.sep}")
    beside = rows.lists["predictions"]
    order: list[int] = []
    files: list[str] = []
    numbers: list[int] = []  # the states, one after the other
    add, find = numbers.extend, rows.of.get
    for folder, names, _ in parts:
        base = "" if folder == "." else f"{folder.rstrip(os.sep)}{os.sep}"
        for name in names:
            file = f"{base}{name}"
            row = find(file[top:])
            if row is not None:
                order.append(row)
                files.append(file)
                other = beside[row]
                add(state(file))
                add(ABSENT if other is None else state(f"{base}{other}"))
            elif (text := _still_bad(file, base, rows.bad.get(file[top:]))) is not None:
                problems.append(text)
            else:
                return None
    states = rows.states[order]
    if not np.array_equal(np.array(numbers, dtype=np.int64).reshape(-1, 8), states):
        return None
    ids = list(map(rows.lists["id"].__getitem__, order))
    if len(set(ids)) != len(ids) or not _agree(rows, order, files, labels):
        return None
    boards = np.array(rows.lists["board"], dtype=np.int64)[order]
    unverified = list(map(rows.lists["unverified"].__getitem__, order))
    return Unchanged(ids, files, unverified, states, boards, rows.shared["board"], problems)


def _still_bad(file: str, base: str, known: Bad | None) -> str | None:
    """Return what is wrong with a file, None if it is new or has changed."""
    if known is None:
        return None
    beside = known.predictions
    other = ABSENT if beside is None else state(f"{base}{beside}")
    return f"{file}{known.message}" if known.states == state(file) + other else None


def _agree(rows: Rows, order: list[int], files: list[str], labels: Labels) -> bool:
    """Say whether the labels beside all records are those of their data."""
    task, own = rows.lists["task"], rows.lists["labels"]
    first: dict[tuple[str, int, int], int] = {}  # labels that agreed once agree again
    for place, (row, file) in enumerate(zip(order, files, strict=True)):
        if own[row] >= 0:
            first.setdefault((file[: file.rfind(os.sep) + 1], task[row], own[row]), place)
    return all(rows.agrees(order[place], files[place], labels) for place in first.values())

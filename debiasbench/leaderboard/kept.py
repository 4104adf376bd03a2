"""Boards that were computed before, kept beside the index of a folder by what they follow from.

A board is used again if its records are the same files in the same states, and all that was asked,
stated by maintainers and computed by this code is the same. So is the text of large tables, if it
is of the same boards in the same layout. Nothing is unpickled.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from debiasbench.common.errors import UnknownNameError
from debiasbench.leaderboard.board import Asked, Board, finished, full_name
from debiasbench.leaderboard.frame import label
from debiasbench.leaderboard.row import Difference, Interval, Row
from debiasbench.leaderboard.standing import Standing
from debiasbench.records.checks.labels import Labels
from debiasbench.records.index import Damaged, boards_of, digest_of, unchanged
from debiasbench.records.index.columns import Columns, text, write
from debiasbench.specs.spec import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from debiasbench.leaderboard.gather import Gathered
    from debiasbench.records.index import Unchanged
    from debiasbench.records.record import Record

T = TypeVar("T")

CODE = ("leaderboard", "records", "specs", "core/supervision.py", "common")
PLAIN = (
    "method",
    "setting",
    "made_by",
    "train",
    "val",
    "records",
    "stale",
    "trust",
    "floor",
    "tuning",
    "tuning_name",
    "found_by",
)
BY_SEED = ("values", "failed", "missing")
EQUAL = ("options", "training", "revisions", "searched")  # many rows have the same ones
MANY = 1000  # records of a folder whose tables are worth keeping as texts
_FAULTS = (AttributeError, IndexError, KeyError, TypeError, ValueError, Damaged, OSError)


class Known:
    """The boards of a folder that were computed before, in order; they are read when needed.

    `problems`: a message for each file that contradicts itself.
    """

    def __init__(
        self,
        kept: Kept,
        boards: Sequence[tuple[Path, str]],
        baseline: str | None,
        records: int,
        problems: list[str],
    ) -> None:
        self._kept, self._boards, self._baseline = kept, boards, baseline
        self._records, self.problems = records, problems

    def boards(self) -> list[Board] | None:
        """Return what `debiasbench.leaderboard.boards` does; None if any board must be computed."""
        with _without_collections():
            made = []
            for file, key in self._boards:
                board = _read(file, key)
                if board is None:
                    return None
                made.append(board)
            return finished(made, self._baseline)

    def text(self, layout: Sequence[object], write: Callable[[list[Board]], str]) -> str | None:
        """Return what `write` makes of the boards; None if any board must be computed.

        `layout`: all that the text follows from beside the boards. The texts of large folders are
        kept, too.
        """
        if self._records < MANY:
            return None if (boards := self.boards()) is None else write(boards)
        keys = [key for _, key in self._boards]
        text = self._kept.find_text(layout, keys)
        if text is None and (boards := self.boards()) is not None:
            text = write(boards)
            self._kept.add_text(layout, keys, text)
        return text


def known(
    places: Sequence[Path],
    *,
    dataset: str | None,
    metric: str | None,
    select: str | None,
    baseline: str | None,
) -> Known | None:
    """Return what an unchanged folder has of `boards`, without reading any record.

    None if a file has changed, a name is wrong, or there is no index.
    """
    if len(places) != 1 or not places[0].is_dir():
        return None
    with _without_collections():
        found = unchanged(places[0], Labels())
        if found is None or not found.ids:
            return None
        one = Kept(
            os.path.realpath(places[0]),
            Standing.beside(places, _Paths(found.ids, found.files)),
        )
        boards = []
        try:
            for asked, rows in _asked(found, dataset, metric, select, baseline):
                ids = list(map(found.ids.__getitem__, rows))
                unverified = list(map(found.unverified.__getitem__, rows))
                file = one.file(asked)
                if file is None or not file.exists():
                    return None
                boards.append((file, one.key(asked, ids, found.states[rows], unverified)))
        except UnknownNameError:
            return None  # the message lists what is known
        return Known(one, boards, baseline, len(found.ids), found.problems)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Let Python look for no unused objects while a million are made that all stay in use."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _asked(
    found: Unchanged,
    dataset: str | None,
    metric: str | None,
    select: str | None,
    baseline: str | None,
) -> Iterator[tuple[Asked, list[int]]]:
    """Yield the boards in the order of `boards`, each with the numbers of its records."""
    parts = found.parts
    if dataset is not None:
        present = {parts[i]["dataset"]["name"] for i in set(found.boards.tolist())}
        dataset = full_name(dataset, present)
    groups: dict[tuple[str, str, str], list[int]] = {}
    keys = [
        (label(Choice(**part["dataset"])), label(Choice(**part["model"])), part["fingerprint"])
        for part in parts
    ]
    for row, number in enumerate(found.boards.tolist()):
        if dataset in {None, parts[number]["dataset"]["name"]}:
            groups.setdefault(keys[number], []).append(row)
    for key in sorted(groups):
        first = parts[int(found.boards[groups[key][0]])]
        yield (
            Asked(*key, metric or first["metric"], select or first["select"], baseline),
            groups[key],
        )


class _Paths(Mapping[str, "Path"]):
    """Id -> the file of a record; paths are made when they are asked for."""

    def __init__(self, ids: Sequence[str], files: Sequence[str]) -> None:
        self._ids, self._files = ids, files
        self._places: dict[str, int] = {}

    def __getitem__(self, name: str) -> Path:
        if not self._places:
            self._places = {known: i for i, known in enumerate(self._ids)}
        return Path(self._files[self._places[name]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


class Keeping:
    """Keeps the boards of a folder for `known`, as `Keep` does, and the text of their tables."""

    def __init__(self, place: Path, gathered: Gathered) -> None:
        self._kept, self._gathered = Kept(os.path.realpath(place), gathered.standing), gathered
        self._keys: list[str | None] = []

    def __call__(self, asked: Asked, records: Sequence[Record], make: Callable[[], Board]) -> Board:
        """Return the board that was kept for the records, or make and keep it."""
        ids, states = [record.id for record in records], self._gathered.states
        file = self._kept.file(asked)
        if file is None or any(name not in states for name in ids):
            self._keys.append(None)
            return make()
        of = np.array([states[name] for name in ids], dtype=np.int64)
        unverified = [name in self._gathered.unverified for name in ids]
        key = self._kept.key(asked, ids, of, unverified)
        self._keys.append(key)
        board = _read(file, key)
        if board is None:
            board = make()
            _keep(file, key, "board", text(_plain(board)))
        return board

    def keep_text(self, layout: Sequence[object], made: str) -> None:
        """Keep the text of all boards, see `Known.text`."""
        keys = [key for key in self._keys if key is not None]
        if len(keys) == len(self._keys) and len(self._gathered.records) >= MANY:
            self._kept.add_text(layout, keys, made)


def keeping(places: Sequence[Path], gathered: Gathered) -> Keeping | None:
    """Return what keeps the boards of a folder for `known`; None for several places.

    A folder with searches has none: the winners decide on sections, and are verified each time.
    """
    if len(places) != 1 or not places[0].is_dir() or gathered.tuned.of:
        return None
    return Keeping(places[0], gathered)


class Kept:
    """The boards of a folder of records, given by its real path, that were computed before."""

    def __init__(self, place: str, standing: Standing) -> None:
        self._folder, self._standing = boards_of(place), standing

    def file(self, asked: Asked) -> Path | None:
        """Return the file of a board; None without a cache."""
        return self._named(list(vars(asked).values()))

    def key(
        self,
        asked: Asked,
        ids: Sequence[str],
        states: NDArray[np.int64],
        unverified: Iterable[bool],
    ) -> str:
        """Return the digest of all that a board follows from.

        `ids`, `states`, `unverified`: of its records in order, see `Unchanged`.
        """
        known, trust, gone = set(ids), self._standing.trust, self._standing.withdrawn
        stated = [
            sorted((name, one.level) for name, one in trust.items() if name in known),
            sorted((name, one.date, one.reason) for name, one in gone.items() if name in known),
            sorted(self._standing.lost & known),
        ]
        words = [version(), *vars(asked).values(), stated, list(ids), list(map(int, unverified))]
        digest = hashlib.sha256(json.dumps(words).encode())
        digest.update(np.ascontiguousarray(states, dtype="<i8").tobytes())
        return digest.hexdigest()

    def find_text(self, layout: Sequence[object], keys: Sequence[str]) -> str | None:
        """Return the text of boards with these keys in a layout, None if it is not kept."""
        file = self._named(["text", *layout])
        if file is None:
            return None
        return _content(file, list(keys), lambda columns: columns.array("text").tobytes().decode())

    def add_text(self, layout: Sequence[object], keys: Sequence[str], made: str) -> None:
        """Keep a text; a cache that cannot be written is ignored."""
        file = self._named(["text", *layout])
        if file is not None:
            _keep(file, list(keys), "text", np.frombuffer(made.encode(), dtype=np.uint8))

    def _named(self, words: Sequence[object]) -> Path | None:
        if self._folder is None:
            return None
        name = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:32]
        return self._folder / f"{name}.npz"


def _read(file: Path, key: str) -> Board | None:
    """Return the board of a file; None if it has another key, or cannot be read."""
    return _content(file, key, lambda columns: _board(columns.json("board")))


def _content(file: Path, key: object, read: Callable[[Columns], T]) -> T | None:
    """Return what `read` makes of a file; None if it has another key, or cannot be read."""
    try:
        columns = Columns(file)
        try:
            return read(columns) if columns.json("key") == key else None
        finally:
            columns.close()
    except _FAULTS:
        return None


def _keep(file: Path, key: object, name: str, content: NDArray[np.uint8]) -> None:
    """Write a file for `_content`; a cache that cannot be written is ignored."""
    with suppress(OSError):
        write(file, [("key", text(key)), (name, content)])


@cache
def version() -> str:
    """Return the digest of the code that computes boards, and of numpy's and scipy's versions."""
    found = importlib.util.find_spec("scipy")
    file = None if found is None or found.origin is None else Path(found.origin)
    versions = np.__version__.encode()
    versions += b"" if file is None else file.with_name("version.py").read_bytes()
    return digest_of(CODE, versions)


def _plain(board: Board) -> dict[str, Any]:
    """Return a board as lists, texts and numbers: a list of each field of its rows."""
    rows = board.rows
    columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in PLAIN}
    for name in BY_SEED:
        of = [getattr(row, name) for row in rows]
        columns[name] = [[list(one), list(one.values())] for one in of]
    for name in ("side", "costs"):
        names = list(getattr(rows[0], name)) if rows else []
        columns[name] = [names, *([getattr(row, name)[n] for row in rows] for n in names)]
    for name in EQUAL:
        texts = [json.dumps(getattr(row, name)) for row in rows]
        number = {one: i for i, one in enumerate(dict.fromkeys(texts))}
        columns[name] = [list(map(json.loads, number)), list(map(number.__getitem__, texts))]
    for name in ("interval", "worst", "difference"):
        columns[name] = [list(vars(getattr(row, name)).values()) for row in rows]
    columns["marked"] = [row.marked for row in rows]
    columns["rank"] = [row.rank for row in rows]
    own = {f.name: getattr(board, f.name) for f in fields(board)}
    return {k: v for k, v in own.items() if k not in {"rows", "comparison"}} | {"rows": columns}


def _board(data: dict[str, Any]) -> Board:
    columns: dict[str, Any] = data.pop("rows")
    of = {name: columns[name] for name in (*PLAIN, "marked")}
    for name in BY_SEED:
        of[name] = [dict(zip(*one, strict=True)) for one in columns[name]]
    for name in ("side", "costs"):
        names, *values = columns[name]
        of[name] = [dict(zip(names, one, strict=True)) for one in zip(*values, strict=True)]
    for name in EQUAL:
        known, numbers = columns[name]
        of[name] = [known[number] for number in numbers]
    of["interval"] = [Interval(*one) for one in columns["interval"]]
    of["worst"] = [Interval(*one) for one in columns["worst"]]
    of["difference"] = [Difference(*one) for one in columns["difference"]]
    of["rank"] = [None if one is None else tuple(one) for one in columns["rank"]]
    rows = [Row(**dict(zip(of, values, strict=True))) for values in zip(*of.values(), strict=True)]
    for name in ("incomplete", "hardware"):
        data[name] = tuple(data[name])
    return Board(rows=rows, **data)

"""`Index`: what tables need of the records of a folder, and the state of the files they are from.

A record is not read again if name, size, times and inode of its file and of its predictions are as
they were.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.records.index.columns import Columns, Damaged, write
from debiasbench.records.index.places import path_of, version
from debiasbench.records.index.rows import Bad, Rows
from debiasbench.records.index.writing import Fresh, members

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from debiasbench.records.checks.labels import Labels
    from debiasbench.records.correct import Correct, Splits
    from debiasbench.records.record import Record
    from debiasbench.records.sharing import Sharing

LEAST = 64  # records of a folder that is worth an index
REWRITTEN = 100_000  # an index of n records is written again from n / 100,000 changes on
SETTLED = 2.0  # seconds since the last change that make the times of a file reliable

State = tuple[int, int, int, int]  # size, mtime_ns, ctime_ns, inode
MOST = (1 << 63) - 1
PASSING = ("cannot be", "does not fit into memory")  # of messages that need not be so next time
ABSENT: State = (-1, 0, 0, 0)


class Index:
    """What tables need of the records below a folder.

    `match` is called for each file of the folder, then `use` or `add`, and `save` at the end.
    """

    def __init__(self, place: str, *, new: bool = False) -> None:
        """Read the index of a folder, given by its real path; `new`: ignore what it holds."""
        self._place = place
        self._path = path_of(place)
        self._rows = Rows(None) if new else self._known()
        self._used: list[int] = []
        self._bad: dict[str, Bad] = {}  # of the files that are there
        self._fresh = Fresh(self._rows)
        self._agreeing: set[tuple[str, int, int]] = set()  # folder, task, labels

    def _known(self) -> Rows:
        if self._path is None:
            return Rows(None)
        try:
            return Rows.read(Columns(self._path), self._place, version())
        except (Damaged, OSError):
            return Rows(None)

    def match(self, name: str, own: State, file: str) -> int | Bad | None:
        """Return the number of an unchanged record, or a file that was bad and has not changed.

        None if the file must be read. `name`: of the file within the folder. `own`: its state.
        `file`: its path. Call `agrees` before `use`, or `use_bad`.
        """
        row, bad = self._rows.of.get(name), self._rows.bad.get(name)
        if own == ABSENT or (row is None and bad is None):
            return None
        if row is not None:
            beside = self._rows.lists["predictions"][row]
            other = ABSENT if beside is None else state(_beside(file, beside))
            return row if self._rows.tuples[row] == own + other else None
        assert bad is not None
        other = ABSENT if bad.predictions is None else state(_beside(file, bad.predictions))
        return bad if bad.states == own + other else None

    def agrees(self, row: int, file: str, labels: Labels) -> bool:
        """Say whether the labels beside a record are those of its data.

        `labels`: compares them with those of other records, as `examine` does.
        """
        lists = self._rows.lists
        # labels that agreed once agree again, since known labels stay
        key = file[: file.rfind(os.sep) + 1], lists["task"][row], lists["labels"][row]
        if key[2] < 0 or key in self._agreeing:
            return True
        agreed = self._rows.agrees(row, file, labels)
        if agreed:
            self._agreeing.add(key)
        return agreed

    def use(self, row: int) -> None:
        """Keep a record in the index."""
        self._used.append(row)

    def use_bad(self, name: str, file: str, bad: Bad) -> str:
        """Keep a bad file in the index; return what is wrong with it."""
        self._bad[name] = bad
        return f"{file}{bad.message}"

    def add_bad(
        self, name: str, own: State, now: float, file: str, record: Record, message: str
    ) -> None:
        """Add a file that contradicts itself; see `add`.

        `message`: only one that depends on nothing but this file and its predictions.
        """
        folder, rest = file[: file.rfind(os.sep)], message.removeprefix(file)
        # another path of the same folder must give another message
        if rest == message or not folder or folder in rest or any(w in rest for w in PASSING):
            return
        if self._path is None or own == ABSENT:
            return
        beside = None if record.predictions is None else Path(record.predictions["file"]).name
        other = ABSENT if beside is None else state(_beside(file, beside))
        if max(*own[1:3], *other[1:3]) <= (now - SETTLED) * 1e9:
            self._bad[name] = self._fresh.bad[name] = Bad(own + other, beside, rest)

    def records(
        self, rows: Sequence[int], select: str | None, sharing: Sharing, splits: Splits
    ) -> list[tuple[Record, Correct | None]]:
        """Return records as `Sharing.for_tables` does, each with its correct samples.

        `rows`: numbers that `match` returned. `select`: the selection rule, None for that of each
        record's data set. Raises `Damaged`.
        """
        return self._rows.records(rows, select, sharing, splits)

    def of(self, row: int) -> tuple[str, str, bool]:
        """Return id, digest of the results, and whether a record was not verified."""
        lists = self._rows.lists
        return lists["id"][row], lists["results"][row], lists["unverified"][row]

    def started(self, row: int) -> str:
        """Return when the run of a record was started."""
        return str(self._rows.lists["started"][row])

    def state(self, row: int) -> tuple[int, ...]:
        """Return the states of a record and its predictions."""
        return self._rows.tuples[row]

    def add(
        self,
        name: str,
        own: State,
        now: float,
        file: str,
        record: Record,
        correct: dict[str, Correct],
        unverified: bool,
        labels: Mapping[str, bytes],
    ) -> tuple[int, ...] | None:
        """Add a record that was read and is sound; return its state if it was added.

        `own`: the state of its file before it was read, at the time `now`. `correct`: by rule.
        `labels`: digests of those beside it. Files that have just been changed are left out,
        because another change may leave their times as they are.
        """
        if self._path is None or own == ABSENT:
            return None
        beside = None if record.predictions is None else Path(record.predictions["file"]).name
        other = ABSENT if beside is None else state(_beside(file, beside))
        newest = max(*own[1:3], *other[1:3])
        if bool(correct) != (other != ABSENT) or newest > (now - SETTLED) * 1e9:
            return None
        self._fresh.add(name, own + other, record, correct, beside, unverified, labels)
        return own + other

    def close(self) -> None:
        """Close the file of the index."""
        self._rows.close()

    def save(self) -> None:
        """Write the index if enough has changed; a cache that cannot be written is ignored."""
        total = len(self._used) + len(self._fresh) + len(self._bad)
        known = len(self._rows) + len(self._rows.bad)
        new = len(self._fresh) + len(self._fresh.bad)
        changes = new + known - (total - new)
        if self._path is None or total < LEAST or not changes or changes * REWRITTEN < total:
            return
        with suppress(OSError, Damaged):
            write(
                self._path,
                members(self._place, version(), self._rows, self._used, self._fresh, self._bad),
            )


def state(file: str) -> State:
    """Return what changes when a file does; `ABSENT` if there is none."""
    try:
        s = os.stat(file)  # noqa: PTH116 - 200,000 of them
    except (OSError, ValueError):
        return ABSENT
    return s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino & MOST


def _beside(file: str, name: str) -> str:
    return f"{file[: file.rfind(os.sep) + 1]}{name}"

"""From files and folders to the records that may be compared."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from debiasbench.common.errors import RecordError
from debiasbench.leaderboard.standing import Standing
from debiasbench.leaderboard.tuning import Tuned
from debiasbench.records.checks.labels import Labels, digests
from debiasbench.records.checks.search import examine as examine_search
from debiasbench.records.correct import Splits
from debiasbench.records.index import ABSENT, Damaged, Index, results, state
from debiasbench.records.reading import read_visited, visited
from debiasbench.records.sharing import Sharing
from debiasbench.records.verify import examine

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from debiasbench.records.checks.search import ExaminedSearch
    from debiasbench.records.correct import Correct
    from debiasbench.records.index import State
    from debiasbench.records.reading import Visited
    from debiasbench.records.record import Record

LISTED = 5  # problems that one message names


class Evidence(TypedDict):
    """What is known of records beside their content, as arguments of `boards`."""

    correct: Mapping[str, Mapping[str, Correct]]
    unverified: Collection[str]
    standing: Standing
    tuned: Tuned


@dataclass(frozen=True)
class Gathered:
    """Records of different specs that do not contradict themselves.

    `correct`: selection rule -> id -> the test samples that the run classified correctly.
    `unverified`: ids of those without predictions. `problems`: a message for each file that was
    left out. `paths`: id -> the file of the record. `standing`: what maintainers state
    about the records. `tuned`: which of them report winners of searches.
    """

    records: list[Record]
    correct: dict[str, dict[str, Correct]]
    unverified: set[str]
    problems: list[str]
    paths: dict[str, Path]
    standing: Standing = field(default_factory=Standing)
    tuned: Tuned = field(default_factory=Tuned)

    @property
    def evidence(self) -> Evidence:
        """What functions that make boards need beside the records."""
        return Evidence(
            correct=self.correct,
            unverified=self.unverified,
            standing=self.standing,
            tuned=self.tuned,
        )


def gather(
    places: Iterable[Path], select: str | None = None, *, whole: bool = False, index: bool = True
) -> Gathered:
    """Read and verify all records in files and folders.

    The records hold only what tables with the selection rule `select` need; None stands for the
    rule of each record's data set. `whole`: they hold everything instead, for all rules. `index`:
    read only files that have changed since they were read last, see `debiasbench.records.index`;
    the result is the same; ignored with `whole`. Raises `RecordError` if there is no record to
    compare.
    """
    places = list(places)
    for new in (False, True):
        indexes = {}
        if index and not whole:
            folders = {i: place for i, place in enumerate(places) if place.is_dir()}
            indexes = {i: Index(os.path.realpath(f), new=new) for i, f in folders.items()}
        try:
            return _Gathering(select, whole, indexes).of(places)
        except Damaged:  # then without what the indexes hold
            continue
        finally:
            for one in indexes.values():
                one.close()
    raise AssertionError("a new index has nothing to be damaged")


class _Gathering:
    """Records by id, as they are found: in an index, or in their files."""

    def __init__(self, select: str | None, whole: bool, indexes: Mapping[int, Index]) -> None:
        self._select, self._whole, self._indexes = select, whole, indexes
        self._problems: list[str] = []
        self._unverified: set[str] = set()
        self._sharing, self._splits, self._labels = Sharing(), Splits(), Labels()
        self._kept: dict[str, tuple[str, str]] = {}  # id -> digest of the results, file
        self._repeated: list[tuple[str, bool]] = []  # id, whether the results are equal
        self._read: dict[str, tuple[Record, Mapping[str, Correct]]] = {}
        self._rows: dict[int, list[int]] = {number: [] for number in indexes}
        self._searches: list[str] = []  # files

    def of(self, places: Sequence[Path]) -> Gathered:
        """Visit all files, and return what was found; raises `Damaged` for an index that is."""
        for found in visited(places, self._problems, self._searches):
            index = self._indexes.get(found.place)
            now, own = time.time(), ABSENT if index is None else state(found.file)
            row = None if index is None else index.find(found.name, own, found.file, self._labels)
            if index is None or row is None:
                self._from_file(found, own, now)
            elif self._is_new(found, *index.of(row)):
                self._rows[found.place].append(row)
        for number, index in self._indexes.items():
            rows = self._rows[number]
            for record, one in index.records(rows, self._select, self._sharing, self._splits):
                rule = self._select or record.task.select
                self._read[record.id] = record, {} if one is None else {rule: one}
            index.save()
        if not self._kept:
            raise RecordError(
                f"There is no record to compare{_hint(self._problems)}. `debiasbench run` makes one"
            )
        return self._gathered(places)

    def _from_file(self, found: Visited, own: State, now: float) -> None:
        record = read_visited(found, self._problems)
        if record is None:
            return
        record = replace(record, task=self._sharing.task(record.task))
        examined = examine(Path(found.file), record, self._labels)
        if messages := examined.messages:
            self._problems.append(_contradictory(found.file, messages))
            return
        stored, bare = examined.stored, bool(examined.unverified)
        right = {} if stored is None else self._splits.correct(record, stored)
        if (index := self._indexes.get(found.place)) is not None:
            known = digests(stored or {})
            index.add(found.name, own, now, found.file, record, right, bare, known)
        if not self._is_new(found, record.id, results(record), bare):
            return
        if not self._whole:
            rule = self._select or record.task.select
            right = {rule: right[rule]} if rule in right else {}
            record = self._sharing.for_tables(record, rule)
        self._read[record.id] = record, right

    def _is_new(self, found: Visited, name: str, digest: str, unverified: bool) -> bool:
        """Keep the id of a record; say whether it is the first with this id."""
        if name in self._kept:
            self._repeated.append((name, digest == self._kept[name][0]))
            return False
        self._kept[name] = digest, found.file
        if unverified:
            self._unverified.add(name)
        return True

    def _gathered(self, places: Sequence[Path]) -> Gathered:
        records = [self._read[name][0] for name in self._kept]
        correct: dict[str, dict[str, Correct]] = {}
        for name in self._kept:
            for rule, one in self._read[name][1].items():
                correct.setdefault(rule, {})[name] = one
        problems = [
            *self._problems,
            *(_repeated(self._read[name][0].spec.stem, same) for name, same in self._repeated),
        ]
        paths = {name: Path(file) for name, (_, file) in self._kept.items()}
        standing = Standing.beside(places, paths)
        tuned = Tuned.among(records, self._examined(problems))
        return Gathered(records, correct, self._unverified, problems, paths, standing, tuned)

    def _examined(self, problems: list[str]) -> list[ExaminedSearch]:
        """Read and verify the searches; add a message to `problems` for each bad one."""
        found = []
        for file in self._searches:
            try:
                one = examine_search(Path(file), self._labels)
            except RecordError as error:
                problems.append(str(error))
                continue
            found.append(one)
            if one.findings:
                problems.append(_contradictory(file, [f.message for f in one.findings]))
        return found


def _contradictory(file: str, messages: Sequence[str]) -> str:
    more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
    return f"{file} contradicts itself: {messages[0]}{more}"


def _hint(problems: Sequence[str]) -> str:
    if not problems:
        return ""
    more = f" and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    return f" ({'; '.join(problems[:LISTED])}{more})"


def distinct(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Keep the first record of each spec; return them and a message for each repeated spec."""
    kept: dict[str, Record] = {}
    problems = []
    for record in records:
        first = kept.setdefault(record.id, record)
        if first is not record:
            problems.append(_repeated(record.spec.stem, results(first) == results(record)))
    return list(kept.values()), problems


def _repeated(stem: str, equal: bool) -> str:
    return (
        f"There are two records of {stem}, with {'equal' if equal else 'different'} "
        "results; the first is used. Remove one"
    )

"""From files and folders to the records that may be compared."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from debiasbench.common.errors import RecordError, UnknownNameError
from debiasbench.leaderboard.standing import Standing
from debiasbench.leaderboard.tuning import Tuned
from debiasbench.records.archive import with_archives
from debiasbench.records.checks.labels import Labels
from debiasbench.records.checks.search import examine as examine_search
from debiasbench.records.correct import Correct, Splits
from debiasbench.records.index import ABSENT, Bad, Damaged, Index, State, results, state
from debiasbench.records.reading import Visited, visited
from debiasbench.records.seen import Reader
from debiasbench.records.sharing import Sharing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from debiasbench.records.checks.search import ExaminedSearch
    from debiasbench.records.record import Record
    from debiasbench.records.seen import Seen

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
    about the records. `tuned`: which of them report winners of searches. `states`: id -> the states
    of the files that the record is from, if an index knows them. `started`: id -> when the run was
    started, which records for tables do not hold.
    """

    records: list[Record]
    correct: dict[str, dict[str, Correct]]
    unverified: set[str]
    problems: list[str]
    paths: dict[str, Path]
    standing: Standing = field(default_factory=Standing)
    tuned: Tuned = field(default_factory=Tuned)
    states: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    started: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def evidence(self) -> Evidence:
        """What functions that make boards need beside the records."""
        return Evidence(
            correct=self.correct,
            unverified=self.unverified,
            standing=self.standing,
            tuned=self.tuned,
        )

    def of_methods(self, methods: Collection[str]) -> Gathered:
        """Return only the records of some methods; raises `UnknownNameError`."""
        present = {record.spec.method.name for record in self.records}
        for name in methods:
            if name not in present:
                raise UnknownNameError("method with records", name, present)
        records = [record for record in self.records if record.spec.method.name in methods]
        return replace(self, records=records)


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
    places = with_archives(places)
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


class _File(NamedTuple):
    """A file of a folder: its state at the time `now`, and what the index has of it.

    `match`: the number of an unchanged record, or an unchanged file that is bad; None if it must be
    read.
    """

    found: Visited
    state: State
    now: float
    match: int | Bad | None


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
        self._states: dict[str, tuple[int, ...]] = {}
        self._started: dict[str, str] = {}
        self._searches: list[str] = []  # files

    def of(self, places: Sequence[Path]) -> Gathered:
        """Visit all files, and return what was found; raises `Damaged` for an index that is."""
        files = list(map(self._matched, visited(places, self._problems, self._searches)))
        reader = Reader(whole=self._whole)
        read = reader.read_all([one.found for one in files if one.match is None])
        for one in files:
            found, index = one.found, self._indexes.get(one.found.place)
            if index is None or one.match is None:
                self._from_file(one, next(read))
            elif isinstance(one.match, Bad):
                self._problems.append(index.use_bad(found.name, found.file, one.match))
            elif not index.agrees(one.match, found.file, self._labels):
                self._from_file(one, reader.read(found))
            else:
                index.use(one.match)
                if self._is_new(found, *(of := index.of(one.match))):
                    self._rows[found.place].append(one.match)
                    self._states[of[0]] = index.state(one.match)
                    self._started[of[0]] = index.started(one.match)
        for number, index in self._indexes.items():
            rows = self._rows[number]
            for record, right in index.records(rows, self._select, self._sharing, self._splits):
                rule = self._select or record.task.select
                self._read[record.id] = record, {} if right is None else {rule: right}
            index.save()
        if not self._kept:
            raise RecordError(
                f"There is no record to compare{_hint(self._problems)}. `debiasbench run` makes one"
            )
        return self._gathered(places)

    def _matched(self, found: Visited) -> _File:
        index = self._indexes.get(found.place)
        if index is None:
            return _File(found, ABSENT, 0.0, None)
        now, own = time.time(), state(found.file)
        return _File(found, own, now, index.match(found.name, own, found.file))

    def _from_file(self, one: _File, seen: Seen) -> None:
        found, index = one.found, self._indexes.get(one.found.place)
        self._problems += seen.problems
        record = seen.record
        if record is None:
            return
        record = replace(record, task=self._sharing.task(record.task))
        messages = seen.messages
        if messages:
            text = _contradictory(found.file, messages)
            self._problems.append(text)
            if index is not None:
                index.add_bad(found.name, one.state, one.now, found.file, record, text)
            return
        if (differing := self._differing(found, record, seen.labels)) is not None:
            self._problems.append(_contradictory(found.file, [differing]))
            return
        shared = {id(of): of for of in seen.correct.values()}  # by rules that keep an epoch
        made = {i: Correct(self._splits.group(of.group), of.bits) for i, of in shared.items()}
        right = {rule: made[id(of)] for rule, of in seen.correct.items()}
        states = None
        if index is not None:
            states = index.add(
                found.name,
                one.state,
                one.now,
                found.file,
                record,
                right,
                seen.unverified,
                seen.labels,
            )
        if not self._is_new(found, record.id, results(record), seen.unverified):
            return
        if states is not None:
            self._states[record.id] = states
        self._started[record.id] = record.provenance.started
        if not self._whole:
            rule = self._select or record.task.select
            right = {rule: right[rule]} if rule in right else {}
            record = self._sharing.for_tables(record, rule)
        self._read[record.id] = record, right

    def _differing(self, found: Visited, record: Record, labels: Mapping[str, bytes]) -> str | None:
        """Say which labels beside a record are not those of its data, None if all are."""
        if not labels:
            return None
        try:
            return self._labels.differing_digests(Path(found.file), record.task.fingerprint, labels)
        except RecordError as error:
            return str(error)

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
        return Gathered(
            records,
            correct,
            self._unverified,
            problems,
            paths,
            standing,
            Tuned.among(records, self._examined(problems)),
            self._states,
            self._started,
        )

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

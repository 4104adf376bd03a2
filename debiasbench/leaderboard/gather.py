"""From files and folders to the records that may be compared."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError
from debiasbench.records.correct import Splits
from debiasbench.records.index import Damaged, Index, results, state
from debiasbench.records.reading import read_visited, visited
from debiasbench.records.sharing import Sharing
from debiasbench.records.verify import examine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from debiasbench.records.correct import Correct
    from debiasbench.records.record import Record

LISTED = 5  # problems that one message names


@dataclass(frozen=True)
class Gathered:
    """Records of different specs that do not contradict themselves.

    `correct`: selection rule -> id -> the test samples that the run classified correctly.
    `unverified`: ids of those without predictions. `problems`: a message for each file that was
    left out. `paths`: id -> the file of the record.
    """

    records: list[Record]
    correct: dict[str, dict[str, Correct]]
    unverified: set[str]
    problems: list[str]
    paths: dict[str, Path]


def gather(
    places: Iterable[Path], select: str | None = None, *, whole: bool = False, index: bool = True
) -> Gathered:
    """Read and verify all records in files and folders.

    The records hold only what tables with the selection rule `select` need; None stands for the
    rule of each record's data set. `whole`: they hold everything instead, for all rules. `index`:
    read only files that have changed since they were read last, see `debiasbench.records.index`;
    this changes no result, and needs not `whole`. Raises `RecordError` if there is no record to
    compare.
    """
    places = list(places)
    try:
        return _gather(places, select, whole=whole, indexes=_indexes(places, index and not whole))
    except Damaged:
        return _gather(
            places, select, whole=whole, indexes=_indexes(places, index and not whole, new=True)
        )


def _indexes(places: Sequence[Path], use: bool, new: bool = False) -> dict[int, Index]:
    if not use:
        return {}
    return {
        number: Index(os.path.realpath(place), new=new)
        for number, place in enumerate(places)
        if place.is_dir()
    }


def _gather(
    places: Sequence[Path], select: str | None, *, whole: bool, indexes: Mapping[int, Index]
) -> Gathered:
    problems: list[str] = []
    unverified: set[str] = set()
    sharing, splits = Sharing(), Splits()
    kept: dict[str, tuple[str, str]] = {}  # id -> digest of the results, file
    read: dict[str, tuple[Record, dict[str, Correct]]] = {}
    rows: dict[int, list[int]] = {}  # by place
    repeated: list[tuple[str, str, bool]] = []
    for found in visited(places, problems):
        index = indexes.get(found.place)
        now, own = time.time(), state(found.file)
        row = None if index is None else index.find(found.name, own, found.file)
        if row is not None and index is not None:
            name, digest, bare = index.of(row)
        else:
            record = read_visited(found, problems)
            if record is None:
                continue
            record = replace(record, task=sharing.task(record.task))
            examined = examine(Path(found.file), record)
            if messages := examined.messages:
                problems.append(_contradictory(found.file, messages))
                continue
            right = {}
            if examined.stored is not None:
                right = splits.every(record, examined.stored)
            name, digest, bare = record.id, results(record), bool(examined.unverified)
            if index is not None:
                index.add(found.name, own, now, found.file, record, right, bare)
        if name in kept:
            repeated.append((name, found.file, digest == kept[name][0]))
            continue
        kept[name] = digest, found.file
        if bare:
            unverified.add(name)
        if row is not None:
            rows.setdefault(found.place, []).append(row)
            continue
        if not whole:
            rule = select or record.task.select
            right = {rule: right[rule]} if rule in right else {}
            record = sharing.for_tables(record, rule)
        read[name] = record, right
    for place, index in indexes.items():
        for record, one in index.records(rows.get(place, ()), select, sharing, splits):
            read[record.id] = record, {} if one is None else {select or record.task.select: one}
        index.save()
    if not kept:
        raise RecordError(
            f"There is no record to compare{_hint(problems)}. `debiasbench run` makes one"
        )
    records = [read[name][0] for name in kept]
    correct: dict[str, dict[str, Correct]] = {}
    for name in kept:
        for rule, one in read[name][1].items():
            correct.setdefault(rule, {})[name] = one
    stems = {record.id: record.spec.stem for record in records} if repeated else {}
    problems += [_repeated(stems[name], equal) for name, _, equal in repeated]
    return Gathered(
        records,
        correct,
        unverified,
        problems,
        {name: Path(file) for name, (_, file) in kept.items()},
    )


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

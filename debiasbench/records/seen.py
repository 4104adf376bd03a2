"""Reading and verifying many files, by several processes where that is faster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.copies import copied
from debiasbench.records.checks.labels import digests
from debiasbench.records.correct import Splits
from debiasbench.records.reading import read_visited
from debiasbench.records.record import SplitResult
from debiasbench.records.sharing import NOTHING, Sharing
from debiasbench.records.verify import examine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from debiasbench.records.checks.finding import Finding
    from debiasbench.records.correct import Correct
    from debiasbench.records.reading import Visited
    from debiasbench.records.record import Record

MANY = 1500  # files that are worth the start of processes
CHUNK = 100  # files that a process reads before it answers


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known of a file after it was read, apart from the labels of other records.

    `record`: None if it is none. `problems`: messages of reading. `findings`: see `examine`;
    `unverified`: whether its predictions are missing. `correct`: by rule, empty without sound
    predictions; `labels`: their digests.
    """

    record: Record | None
    problems: list[str]
    findings: list[Finding]
    unverified: bool
    correct: dict[str, Correct]
    labels: dict[str, bytes]

    @property
    def messages(self) -> list[str]:
        """A message for each contradiction."""
        return [finding.message for finding in self.findings if finding.is_error]


class Reader:
    """Reads files and verifies them. `whole`: records hold everything, not what tables need."""

    def __init__(self, *, whole: bool) -> None:
        self._whole, self._sharing, self._splits = whole, Sharing(), Splits()

    def read(self, found: Visited) -> Seen:
        """Read a file."""
        problems: list[str] = []
        record = read_visited(found, problems)
        if record is None:
            return Seen(None, problems, [], False, {}, {})
        record = replace(record, task=self._sharing.task(record.task))
        examined = examine(Path(found.file), record)
        stored = examined.stored
        return Seen(
            record if self._whole or examined.messages else _small(record),
            problems,
            examined.findings,
            bool(examined.unverified),
            {} if stored is None else self._splits.correct(record, stored),
            digests(stored or {}),
        )

    def read_all(self, files: Sequence[Visited]) -> Iterator[Seen]:
        """Read files in order; many of them in several processes."""
        if len(files) < MANY:
            yield from map(self.read, files)
            return
        parts = [(self, files[i : i + CHUNK]) for i in range(0, len(files), CHUNK)]
        for some in copied(_read, parts):
            yield from some


def _read(reader: Reader, files: Sequence[Visited]) -> list[Seen]:
    return list(map(reader.read, files))


def _small(record: Record) -> Record:
    """Return a record without what no table shows."""
    outcomes = {
        rule: replace(one, val=NOTHING, test=SplitResult(one.test.hits, {}))
        for rule, one in record.outcomes.items()
    }
    return replace(record, outcomes=outcomes, curves=[])

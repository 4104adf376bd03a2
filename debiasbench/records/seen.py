"""Reading and verifying many files, by several processes where that is faster."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

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
AHEAD = 3  # answers of each process that may wait


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
        done = 0
        if len(files) >= MANY and (processes := _processes()) > 1:
            try:
                for some in self._together(files, processes):
                    yield from some
                    done += len(some)
            except (BrokenProcessPool, OSError):
                pass  # a process was killed, or none could be started: go on alone
        yield from map(self.read, files[done:])

    def _together(self, files: Sequence[Visited], processes: int) -> Iterator[list[Seen]]:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        parts = (files[i : i + CHUNK] for i in range(0, len(files), CHUNK))
        pool = ProcessPoolExecutor(
            processes, multiprocessing.get_context("fork"), _begin, (self._whole,)
        )
        try:
            waiting = deque(pool.submit(_read, part) for part in islice(parts, AHEAD * processes))
            while waiting:
                yield waiting.popleft().result()
                waiting += (pool.submit(_read, part) for part in islice(parts, 1))
        finally:
            pool.shutdown(cancel_futures=True)


def _processes() -> int:
    """Return how many processes may read; 1 where a process cannot be copied safely."""
    alone = threading.active_count() == 1 and "torch" not in sys.modules
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" and alone else 1


_reader: Reader | None = None  # of a process that only reads


def _begin(whole: bool) -> None:
    global _reader  # noqa: PLW0603 - a process has one
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for it ends it
    _reader = Reader(whole=whole)


def _read(files: Sequence[Visited]) -> list[Seen]:
    assert _reader is not None
    return list(map(_reader.read, files))


def _small(record: Record) -> Record:
    """Return a record without what no table shows."""
    outcomes = {
        rule: replace(one, val=NOTHING, test=SplitResult(one.test.hits, {}))
        for rule, one in record.outcomes.items()
    }
    return replace(record, outcomes=outcomes, curves=[])

"""From files and folders to the records that may be compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError
from debiasbench.leaderboard.standing import Standing
from debiasbench.records.checks.labels import Labels
from debiasbench.records.correct import Splits
from debiasbench.records.reading import stream
from debiasbench.records.sharing import Sharing
from debiasbench.records.verify import examine

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from debiasbench.records.correct import Correct
    from debiasbench.records.record import Record

LISTED = 5  # problems that one message names


@dataclass(frozen=True)
class Gathered:
    """Records of different specs that do not contradict themselves.

    `correct`: selection rule -> id -> the test samples that the run classified correctly.
    `unverified`: ids of those without predictions. `problems`: a message for each file that was
    left out. `paths`: id -> the file of the record. `standing`: what maintainers state of
    the records.
    """

    records: list[Record]
    correct: dict[str, dict[str, Correct]]
    unverified: set[str]
    problems: list[str]
    paths: dict[str, Path]
    standing: Standing = field(default_factory=Standing)


def gather(places: Iterable[Path], select: str | None = None, *, whole: bool = False) -> Gathered:
    """Read and verify all records in files and folders.

    The records hold only what tables with the selection rule `select` need; None stands for the
    rule of each record's data set. `whole`: they hold everything instead, for all rules. Raises
    `RecordError` if there is no record to compare.
    """
    places = list(places)
    gathered = Gathered([], {}, set(), [], {}, Standing.beside(places))
    repeated: list[str] = []
    sharing, splits, labels = Sharing(), Splits(), Labels()
    results: dict[str, int] = {}  # id -> hash of the results
    for path, record in stream(places, gathered.problems):
        found = examine(path, record, labels)
        if messages := found.messages:
            more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
            gathered.problems.append(f"{path} contradicts itself: {messages[0]}{more}")
            continue
        if record.id in results:
            repeated.append(_repeated(record, results[record.id] == _results(record)))
            continue
        results[record.id] = _results(record)
        rule = select or record.task.select
        if found.unverified:
            gathered.unverified.add(record.id)
        for name in record.outcomes if whole else (rule,):
            if found.stored and (right := splits.correct(record, found.stored, name)):
                gathered.correct.setdefault(name, {})[record.id] = right
        gathered.paths[record.id] = path
        gathered.records.append(record if whole else sharing.for_tables(record, rule))
    if not gathered.records:
        raise RecordError(
            f"There is no record to compare{_hint(gathered.problems)}. `debiasbench run` makes one"
        )
    gathered.problems.extend(repeated)
    return gathered


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
            problems.append(_repeated(record, _results(first) == _results(record)))
    return list(kept.values()), problems


def _repeated(record: Record, equal: bool) -> str:
    return (
        f"There are two records of {record.spec.stem}, with {'equal' if equal else 'different'} "
        "results; the first is used. Remove one"
    )


def _results(record: Record) -> int:
    """Return a hash of the status and all hits on the test split."""
    hits = ((rule, tuple(o.test.hits)) for rule, o in sorted(record.outcomes.items()))
    return hash((record.status, *hits))

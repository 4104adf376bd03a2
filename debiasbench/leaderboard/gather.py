"""From files and folders to the records that may be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError
from debiasbench.records.reading import read_all
from debiasbench.records.verify import check

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from debiasbench.records.record import Record


@dataclass(frozen=True)
class Gathered:
    """Records of different specs that do not contradict themselves.

    `unverified`: ids of those without predictions. `problems`: a message for each file that was
    left out.
    """

    records: list[Record]
    unverified: set[str]
    problems: list[str]


def gather(places: Iterable[Path]) -> Gathered:
    """Read and verify all records in files and folders.

    Raises `RecordError` if there is no record to compare.
    """
    records, problems = read_all(places)
    checked = check(records)
    for path, messages in checked.contradictions:
        more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
        problems.append(f"{path} contradicts itself: {messages[0]}{more}")
    compared, repeated = distinct([record for _, record in checked.sound])
    if not compared:
        hint = f" ({'; '.join(problems)})" if problems else ""
        raise RecordError(f"There is no record to compare{hint}. `debiasbench run` makes one")
    unverified = {record.id for _, record, _ in checked.unverified}
    return Gathered(compared, unverified, [*problems, *repeated])


def distinct(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Keep the first record of each spec; return them and a message for each repeated spec."""
    kept: dict[str, Record] = {}
    problems = []
    for record in records:
        first = kept.setdefault(record.id, record)
        if first is not record:
            same = "equal" if _results(first) == _results(record) else "different"
            problems.append(
                f"There are two records of {record.spec.stem}, with {same} results; the first is "
                "used. Remove one"
            )
    return list(kept.values()), problems


def _results(record: Record) -> tuple[str, dict[str, list[int]]]:
    return record.status, {rule: o.test.hits for rule, o in record.outcomes.items()}

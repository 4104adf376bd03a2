"""Checks that a record agrees with itself and with the predictions beside it; without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import RecordError
from debiasbench.common.wording import shortened
from debiasbench.records.beside import location
from debiasbench.records.checks import epochs, inferred, numbers, statement
from debiasbench.records.checks.copies import Copies
from debiasbench.records.checks.finding import Finding
from debiasbench.records.checks.labels import Labels
from debiasbench.records.checks.plausible import implausible
from debiasbench.records.checks.predictions import predictions, stored_predictions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from debiasbench.records.record import Record

    Stored = Mapping[str, NDArray[Any]]


def verify(path: Path, record: Record) -> list[str]:
    """Return a message for each contradiction in a record, none if it agrees with itself.

    `path` is the file that `record` was read from; its predictions are in the same folder. A
    record whose predictions are missing is checked as far as possible: see `why_unverified`.
    """
    return examine(path, record).messages


@dataclass(frozen=True, eq=False)
class Examined:
    """What `examine` found.

    `findings`: each contradiction, and what needs a look. `unverified`: see `why_unverified`.
    `stored`: the content of the predictions file, None if there is none or it contradicts the
    record.
    """

    findings: list[Finding]
    unverified: str | None
    stored: Stored | None

    @property
    def messages(self) -> list[str]:
        """A message for each contradiction."""
        return [finding.message for finding in self.findings if finding.is_error]


class Together:
    """Examines records one after the other, and compares them with each other.

    `references`: folder of reference labels; None looks for `references` beside each record.
    `strict`: seeds that are equal are an error, as in a submission.
    """

    def __init__(self, references: Path | None = None, *, strict: bool = False) -> None:
        self.labels, self.copies = Labels(references), Copies(strict=strict)

    def examine(self, path: Path, record: Record) -> Examined:
        """Return what `examine` does, and what follows from the records before this one."""
        found = examine(path, record, self.labels)
        if found.messages:
            return found  # what it shares with others does not count against them
        more = self.copies.findings(record, found.stored)
        wrong = any(finding.is_error for finding in more)
        stored = None if wrong else found.stored
        return Examined([*found.findings, *more], found.unverified, stored)


def examine(path: Path, record: Record, labels: Labels | None = None) -> Examined:
    """Return what `verify` and `why_unverified` do, and what the predictions file holds.

    `labels`: compares the labels beside the record with those of other records on the same data.
    """
    try:
        return _examined(path, record, labels)
    except Exception as error:  # a record that somebody made may hold anything
        text = f"its content cannot be checked ({type(error).__name__}: {error})"
        return Examined([Finding("E01", shortened(text))], None, None)


def _examined(path: Path, record: Record, labels: Labels | None) -> Examined:
    reason = why_unverified(path, record)
    stored, trouble = (None, None) if reason else stored_predictions(path, record)
    findings = list(_findings(record, stored, trouble))
    if stored is not None and labels is not None and not any(f.is_error for f in findings):
        try:
            differing = labels.differing(path, record, stored)
        except RecordError as error:
            differing = str(error)
        findings += [Finding("E03", differing)] if differing else []
    wrong = any(finding.is_error for finding in findings)
    return Examined(findings, reason, None if wrong else stored)


def _findings(record: Record, stored: Stored | None, trouble: str | None) -> Iterator[Finding]:
    computed = numbers.computed_accuracies(record)
    yield from _of("E01", statement.spec(record))
    yield from _of("E01", statement.status(record))
    yield from _of("E02", [trouble] if trouble else [])
    if stored is not None:
        yield from predictions(record, stored)
        yield from _of("E04", inferred.inference(record, stored))
    yield from _of("E04", numbers.metrics(record, computed))
    yield from _of("E01", epochs.uneven(record))
    yield from _of("E05", epochs.kept(record, computed))
    yield from _of("E05", epochs.curves(record, computed))
    if record.cost is not None:
        yield from _of("E04", numbers.cost(record.cost))
        yield from _of("W01", implausible(record))


def _of(code: str, messages: Iterable[str]) -> Iterator[Finding]:
    return (Finding(code, message) for message in messages)


def why_unverified(path: Path, record: Record) -> str | None:
    """Return why the hits of a record cannot be compared with predictions, None if they can."""
    if not record.outcomes:
        return None  # there are no hits
    if record.predictions is None:
        return "the record names no predictions"
    if not location(path, record.predictions).exists():
        return f"its predictions are missing ({location(path, record.predictions).name})"
    return None

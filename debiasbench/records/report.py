"""Verification of whole folders: what was found in each record, as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from debiasbench.common.wording import counted, printable
from debiasbench.records.checks.labels import Collected
from debiasbench.records.reading import stream
from debiasbench.records.verify import Together

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from debiasbench.records.checks.finding import Finding


@dataclass(frozen=True)
class Report:
    """What verification found.

    `unreadable`: a message for each file that is not a record. `findings`: of each record that has
    some. `unverified`: records that have no error, but no predictions either, with the reason.
    """

    records: int = 0
    unreadable: list[str] = field(default_factory=list)
    findings: list[tuple[Path, list[Finding]]] = field(default_factory=list)
    unverified: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def bad(self) -> int:
        """Number of files that must not be used."""
        return self.contradictory + len(self.unreadable)

    @property
    def contradictory(self) -> int:
        """Number of records with an error."""
        return sum(any(f.is_error for f in found) for _, found in self.findings)

    @property
    def summary(self) -> str:
        """The counts in one line."""
        counts = {
            "verified": self.records - self.contradictory - len(self.unverified),
            "without predictions": len(self.unverified),
            "contradictory": self.contradictory,
            "unreadable": len(self.unreadable),
        }
        text = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n or kind == "verified")
        return f"{counted(self.records + len(self.unreadable), 'record')}: {text}"

    def lines(self) -> Iterator[str]:
        """Yield a line for each finding, and the summary."""
        yield from self.unreadable
        for path, found in self.findings:
            for finding in found:
                verb = "contradicts itself" if finding.is_error else "needs a look"
                yield f"{path} {verb} ({finding.code}): {finding.message}"
        for path, reason in self.unverified:
            yield f"{path} cannot be verified: {reason}"
        yield self.summary

    def as_json(self) -> str:
        """Write the report as JSON."""
        data = {
            "summary": self.summary,
            "bad": self.bad,
            "unreadable": [printable(message) for message in self.unreadable],
            "findings": [
                {"file": str(path), "code": f.code, "message": printable(f.message)}
                for path, found in self.findings
                for f in found
            ],
            "unverified": [
                {"file": str(path), "message": printable(reason)}
                for path, reason in self.unverified
            ],
        }
        return json.dumps(data, indent=1) + "\n"


def verified(
    places: Iterable[Path],
    references: Path | None = None,
    write_references: Path | None = None,
) -> tuple[Report, list[Path]]:
    """Verify all records in files and folders; return a report and the references written.

    `references`: folder of reference labels; None looks for `references` beside the records.
    `write_references`: folder to which the labels of all sound records are written. Raises
    `RecordError` for a place that does not exist, and `StoreError`.
    """
    unreadable: list[str] = []
    findings: list[tuple[Path, list[Finding]]] = []
    unverified: list[tuple[Path, str]] = []
    together, collected, records = Together(references), Collected(), 0
    for path, record in stream(places, unreadable):
        records += 1
        found = together.examine(path, record)
        if found.findings:
            findings.append((path, found.findings))
        if found.unverified and not found.messages:
            unverified.append((path, found.unverified))
        if write_references is not None and found.stored is not None:
            collected.add(record, found.stored)
    written = [] if write_references is None else collected.write(write_references)
    return Report(records, unreadable, findings, unverified), written

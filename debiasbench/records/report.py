"""Verification of whole folders: what was found in each record, as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError
from debiasbench.common.wording import counted, printable
from debiasbench.records.checks.labels import Collected
from debiasbench.records.checks.search import examine, reported
from debiasbench.records.reading import SEARCH, stream
from debiasbench.records.verify import Together
from debiasbench.specs.search import SEED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from debiasbench.records.checks.finding import Finding
    from debiasbench.records.record import Record


@dataclass(frozen=True)
class Report:
    """What verification found.

    `unreadable`: a message for each file that is not a record. `findings`: of each record that has
    some, and of each search. `unverified`: records that have no error, but no predictions either,
    with the reason. `searches`: number of searches.
    """

    records: int = 0
    unreadable: list[str] = field(default_factory=list)
    findings: list[tuple[Path, list[Finding]]] = field(default_factory=list)
    unverified: list[tuple[Path, str]] = field(default_factory=list)
    searches: int = 0

    @property
    def bad(self) -> int:
        """Number of files that must not be used."""
        return self.contradictory + len(self.unreadable)

    @property
    def contradictory(self) -> int:
        """Number of records and searches with an error."""
        return sum(any(f.is_error for f in found) for _, found in self.findings)

    @property
    def _bad_searches(self) -> int:
        return sum(path.name.endswith(SEARCH) for path, _ in self.findings)

    @property
    def summary(self) -> str:
        """The counts in one line."""
        contradictory = self.contradictory - self._bad_searches
        counts = {
            "verified": self.records - contradictory - len(self.unverified),
            "without predictions": len(self.unverified),
            "contradictory": contradictory,
            "unreadable": len(self.unreadable),
        }
        text = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n or kind == "verified")
        text = f"{counted(self.records + len(self.unreadable), 'record')}: {text}"
        if not self.searches:
            return text
        bad = self._bad_searches
        ending = f", {bad} contradictory" if bad else ""
        noun = "search" if self.searches == 1 else "searches"
        return f"{text}; {self.searches:,} {noun}: {self.searches - bad} verified{ending}"

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
    together, collected = Together(references), Collected()
    records = searches = 0
    files: list[str] = []
    of_trials: list[Record] = []  # with the seed of trials
    for path, record in stream(places, unreadable, files):
        records += 1
        of_trials += [record] if record.spec.seed == SEED else []
        found = together.examine(path, record)
        if found.findings:
            findings.append((path, found.findings))
        if found.unverified and not found.messages:
            unverified.append((path, found.unverified))
        if write_references is not None and found.stored is not None:
            collected.add(record, found.stored)
    for file in files:
        try:
            searched = examine(Path(file), together.labels)
        except RecordError as error:
            unreadable.append(str(error))
            continue
        searches += 1
        if wrong := [*searched.findings, *reported(searched, of_trials)]:
            findings.append((searched.path, wrong))
    written = [] if write_references is None else collected.write(write_references)
    return Report(records, unreadable, findings, unverified, searches), written

"""All checks of a submission in one call; nothing of it is imported or run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import DebiasbenchError, RecordError
from debiasbench.common.wording import shortened
from debiasbench.records.checks import search
from debiasbench.records.checks.finding import Finding
from debiasbench.records.checks.labels import near
from debiasbench.specs.plugins import Plugins
from debiasbench.submissions import against
from debiasbench.submissions.about import FILE
from debiasbench.submissions.folder import SEARCHES, Submission, opened
from debiasbench.submissions.published import Published

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.records.checks.search import ExaminedSearch

CONSISTENT = {"E00", "E01", "E02", "E03", "E04", "E11"}  # what a listed one must have passed


@dataclass(frozen=True)
class Result:
    """What the checks found, by file, and the level of trust that follows.

    `level`: "verified", "listed", or "" for a submission that must not be accepted as it is.
    `spreads`: id -> the standard deviation over seeds that is believed; see `Published.spread`.
    """

    submission: Submission
    findings: dict[str, list[Finding]]
    level: str
    rows: int
    references: Path | None = None
    spreads: dict[str, float] = field(default_factory=dict)

    @property
    def errors(self) -> int:
        """Number of errors."""
        return sum(f.is_error for found in self.findings.values() for f in found)

    @property
    def warnings(self) -> int:
        """Number of findings that need a look."""
        return sum(not f.is_error for found in self.findings.values() for f in found)


def checked(
    folder: Path,
    published: Sequence[Path] = (),
    references: Path | None = None,
    blocked: Path | None = None,
) -> Result:
    """Check a submission.

    `published`: published records to compare with. `references`: folder of reference labels; None
    looks beside the published records. `blocked`: list of versions that must not be used. Only
    builtin plugins are loaded. Raises `RecordError` for a path that is not a folder.
    """
    submission = opened(folder)
    findings = {file: list(found) for file, found in submission.findings.items()}
    references = references or next(filter(None, map(near, published)), None)
    known = Published.read(published, references)
    plugins = Plugins(installed=False)
    about = submission.about
    suite = None
    if about is not None and about.suite:
        try:
            suite = against.expected(about.suite, plugins)
        except DebiasbenchError as error:
            findings.setdefault(FILE, []).append(Finding("E08", str(error)))
    bad_versions = [] if blocked is None else against.read_blocked(blocked)
    records = [record for _, record in submission.records]
    found_searches = _searches(submission, known, findings, bad_versions)
    for path, record in submission.records:
        own = findings.setdefault(os.path.relpath(path, submission.folder), [])
        placed = not any(finding.code == "E02" for finding in own)
        try:
            if placed:  # otherwise the predictions may be anything
                own += known.together.examine(path, record).findings
            own += known.task(record)
            own += against.epochs(record)
            if about is not None and suite is not None:
                chosen = against.tuned(record, found_searches)
                own += against.suite_settings(record, suite, about.suite, chosen)
                if not known.has_reference(record):
                    own.append(Finding("W06", "there are no reference labels of its data"))
            own += against.declared(record, plugins)
            own += against.supervision(record, [*known.records.values(), *records])
            own += against.provenance(record, about, bad_versions)
            own += known.cost(record)
            own += known.result(record)
        except Exception as error:  # a record that somebody made may hold anything
            text = f"its content cannot be checked ({type(error).__name__}: {error})"
            own.append(Finding("E01", shortened(text)))
    rows = against.rows(records)
    for row in rows.values():
        first = next(path for path, record in submission.records if record is row[0])
        own = findings.setdefault(os.path.relpath(first, submission.folder), [])
        own += against.seeds(row, suite)
    findings = {file: list(dict.fromkeys(found)) for file, found in findings.items() if found}
    codes = {f.code for found in findings.values() for f in found if f.is_error}
    level, unknown = "", any(f.code == "W06" for found in findings.values() for f in found)
    if not codes and suite is not None and about is not None and not about.changes and not unknown:
        level = "verified"
    elif not codes & CONSISTENT:
        level = "listed"
    own_ids = {record.id for record in records}
    spreads = {record.id: known.spread(record, own_ids) for record in records}
    return Result(submission, findings, level, len(rows), references, spreads)


def _searches(
    submission: Submission,
    known: Published,
    findings: dict[str, list[Finding]],
    blocked: Sequence[against.Blocked],
) -> list[ExaminedSearch]:
    """Return the searches without errors; add what is wrong with others to `findings` (E11)."""
    unreadable = any(Path(name).parent == Path(SEARCHES) for name in findings)
    for path, trial in submission.trials:
        own = findings.setdefault(os.path.relpath(path, submission.folder), [])
        own += against.provenance(trial, submission.about, blocked)
    if unreadable:
        return []
    sound = []
    records = [record for _, record in submission.records]
    trials = set()
    for path in submission.searches:
        own = findings.setdefault(os.path.relpath(path, submission.folder), [])
        try:
            one = search.examine(path, known.together.labels)
        except RecordError as error:
            own.append(Finding("E11", str(error).removeprefix(f"{path} ")))
            continue
        trials |= {one.search.trial_file(name) for name in one.search.trials}
        own += [*one.findings, *search.reported(one, records)]
        if not own and not search.is_reported(one, records):
            own.append(Finding("E11", "no record in the folder reports its winner"))
        if not own:
            sound.append(one)
    for path, _ in submission.trials:
        if path.name not in trials:
            own = findings.setdefault(os.path.relpath(path, submission.folder), [])
            own.append(Finding("E00", "no search in the folder has this trial"))
    return sound

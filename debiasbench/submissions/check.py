"""All checks of a submission in one call; nothing of it is imported or run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from debiasbench.common.errors import DebiasbenchError
from debiasbench.records.checks.finding import Finding
from debiasbench.specs.plugins import Plugins
from debiasbench.submissions import against
from debiasbench.submissions.folder import Submission, opened
from debiasbench.submissions.published import Published

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CONSISTENT = {"E00", "E01", "E02", "E03", "E04"}  # what a listed submission must have passed


@dataclass(frozen=True)
class Result:
    """What the checks found, by file, and the level of trust that follows.

    `level`: "verified", "listed", or "" for a submission that must not be accepted as it is.
    """

    submission: Submission
    findings: dict[str, list[Finding]]
    level: str
    rows: int
    known: frozenset[str] = frozenset()  # ids that are published
    copied: frozenset[str] = frozenset()  # those of them that are the published files themselves

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
    known = Published.read(published, references or _beside(published))
    plugins = Plugins(installed=False)
    about = submission.about
    suite, trouble = None, None
    if about is not None and about.suite:
        try:
            suite = against.expected(about.suite, plugins)
        except DebiasbenchError as error:
            trouble = Finding("E08", str(error))
            findings.setdefault("submission.toml", []).append(trouble)
    bad_versions = [] if blocked is None else against.read_blocked(blocked)
    records = [record for _, record in submission.records]
    for path, record in submission.records:
        own = findings.setdefault(os.path.relpath(path, submission.folder), [])
        placed = not any(finding.code == "E02" for finding in own)
        if placed:  # otherwise the predictions may be anything
            own += known.together.examine(path, record).findings
        own += known.task(record)
        if about is not None and suite is not None:
            own += against.suite_settings(record, suite, about.suite)
        own += against.declared(record, plugins)
        own += against.supervision(record, [*known.records.values(), *records])
        own += against.provenance(record, about, bad_versions)
        own += known.cost(record)
        own += known.result(record)
    rows = against.rows(records)
    for row in rows.values():
        first = next(path for path, record in submission.records if record is row[0])
        own = findings.setdefault(os.path.relpath(first, submission.folder), [])
        own += against.seeds(row, suite)
    findings = {file: list(dict.fromkeys(found)) for file, found in findings.items() if found}
    codes = {f.code for found in findings.values() for f in found if f.is_error}
    level = ""
    if not codes and suite is not None:
        level = "verified"
    elif not codes & CONSISTENT:
        level = "listed"
    known_ids = frozenset(record.id for record in records if record.id in known.records)
    copied = frozenset(r.id for r in records if r.id in known_ids and known.is_copy(r))
    return Result(submission, findings, level, len(rows), known_ids, copied)


def _beside(published: Sequence[Path]) -> Path | None:
    """Return the folder of references beside or above published records."""
    from debiasbench.records.checks.labels import ABOVE, FOLDER

    for place in published:
        for folder in [place.resolve(), *place.resolve().parents[:ABOVE]]:
            if (folder / FOLDER).is_dir():
                return folder / FOLDER
    return None

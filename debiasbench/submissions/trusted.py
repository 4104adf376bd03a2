"""The trust levels that maintainers give to the records of a submission."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.records.trust import Trust, content_of

if TYPE_CHECKING:
    from debiasbench.submissions.check import Result


def levels(result: Result, level: str, date: str, commit: str) -> dict[str, Trust]:
    """Return one level for each record of a submission, by id, with who made it and the source.

    Raises `RecordError`.
    """
    submission = result.submission
    log, about = f"submission {submission.name}", submission.about
    made = () if about is None else (about.who, about.source, about.sha256)
    return {
        record.id: Trust(level, date, content_of(path), commit, log, *made)
        for path, record in submission.records
    }

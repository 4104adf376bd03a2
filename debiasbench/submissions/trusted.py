"""The trust levels that follow from checking a submission."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from debiasbench.submissions.check import Result


def levels(result: Result) -> dict[str, str]:
    """Return the level of each record of a submission without errors, by id.

    A record of a spec that others have published, and whose result agrees (no W02), makes the spec
    independent: two parties ran it. The same files submitted again are no second run.
    """
    found = {}
    for path, record in result.submission.records:
        name = path.relative_to(result.submission.folder).as_posix()
        codes = {finding.code for finding in result.findings.get(name, ())}
        again = record.id in result.known and record.id not in result.copied
        found[record.id] = "independent" if again and "W02" not in codes else result.level
    return found

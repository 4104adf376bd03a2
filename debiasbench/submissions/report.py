"""The result of checking a submission, as a table and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from debiasbench.common.wording import counted, printable, shortened
from debiasbench.records.checks.finding import CODES

if TYPE_CHECKING:
    from debiasbench.submissions.check import Result

MOST_LINES = 200  # of findings in a table; the JSON has all of them


def as_text(result: Result) -> str:
    """Write a table of all findings, what their codes mean, and the level that follows."""
    from tabulate import tabulate

    files: dict[tuple[str, str], list[str]] = {}  # by code and message
    for file, found in sorted(result.findings.items()):
        for finding in found:
            files.setdefault((finding.code, finding.message), []).append(file)
    rows = [
        (code, _cell(message), _cell(found[0]) + (f" and {len(found) - 1} more" * (len(found) > 1)))
        for (code, message), found in sorted(files.items())
    ]
    parts = []
    if rows:
        table = tabulate(
            rows[:MOST_LINES],
            headers=("code", "finding", "file"),
            tablefmt="plain",
            disable_numparse=True,
            maxcolwidths=[None, 70, None],
        )
        more = len(rows) - MOST_LINES
        parts.append(table + (f"\n... and {more:,} more" if more > 0 else ""))
        codes = sorted({code for code, _, _ in rows})
        parts.append("\n".join(f"{code}  {CODES[code]}" for code in codes))
    parts.append(summary(result))
    return "\n\n".join(parts) + "\n"


def summary(result: Result) -> str:
    """Write the counts and the level of trust in one line."""
    submission = result.submission
    level = f"level {result.level}" if result.level else "not acceptable as it is"
    if result.level and result.errors:
        level += ", if maintainers accept the errors"
    return (
        f"{printable(submission.name)}: {counted(len(submission.records), 'record')} in "
        f"{counted(result.rows, 'row')}, {counted(result.errors, 'error')}, "
        f"{counted(result.warnings, 'warning')}: {level}"
    )


def as_json(result: Result) -> str:
    """Write all findings, counts and the level as JSON."""
    data = {
        "submission": printable(result.submission.name),
        "records": len(result.submission.records),
        "rows": result.rows,
        "errors": result.errors,
        "warnings": result.warnings,
        "level": result.level or None,
        "findings": [
            {"code": f.code, "file": printable(file), "message": printable(f.message)}
            for file, found in sorted(result.findings.items())
            for f in found
        ],
    }
    return json.dumps(data, indent=1) + "\n"


def _cell(text: str) -> str:
    return printable(shortened(" ".join(text.split()), 400))

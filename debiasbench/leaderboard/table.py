"""From files to a table in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError
from debiasbench.leaderboard.board import boards, distinct
from debiasbench.leaderboard.render import render
from debiasbench.records.reading import read_all
from debiasbench.records.verify import check

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def table(
    places: Iterable[Path],
    form: str,
    *,
    dataset: str | None = None,
    metric: str | None = None,
    select: str | None = None,
    baseline: str | None = None,
) -> tuple[str, list[str]]:
    """Compare all records in files and folders; return the text and a message for each bad record.

    Records that contradict themselves are left out. `form` is one of `FORMATS`; the other
    arguments are those of `boards`. Raises `RecordError` if there is no record to compare.
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
    made = boards(
        compared,
        dataset=dataset,
        metric=metric,
        select=select,
        baseline=baseline,
        unverified={record.id for _, record, _ in checked.unverified},
    )
    return render(made, form), [*problems, *repeated]

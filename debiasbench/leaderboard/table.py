"""From files to a table in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError
from debiasbench.leaderboard.board import boards, distinct
from debiasbench.leaderboard.render import render
from debiasbench.records.store import read_all

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
    """Compare all records in files and folders; return the text and a line for each bad record.

    `form` is one of `FORMATS`; the rest is as in `boards`. Raises `RecordError` if there is no
    record at all, naming what was found instead.
    """
    found, problems = read_all(places)
    records, repeated = distinct([record for _, record in found])
    if not records:
        hint = f" ({'; '.join(problems)})" if problems else ""
        raise RecordError(f"There is no record to compare{hint}. `debiasbench run` makes one")
    made = boards(records, dataset=dataset, metric=metric, select=select, baseline=baseline)
    return render(made, form), [*problems, *repeated]

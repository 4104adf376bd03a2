"""From files to a table in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError
from debiasbench.leaderboard import pivot as pivoted
from debiasbench.leaderboard.board import boards
from debiasbench.leaderboard.gather import gather
from debiasbench.leaderboard.render import MARKUPS, render

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
    pivot: str | None = None,
) -> tuple[str, list[str]]:
    """Compare all records in files and folders; return the text and a message for each bad record.

    Records that contradict themselves are left out. `form` is one of `FORMATS`. `pivot` is an
    option whose values become columns, see `pivots`; the other arguments are those of `boards`.
    Raises `RecordError` if there is no record to compare, and `OptionError` for a pivot with a
    baseline or in a format that is not a table.
    """
    if pivot is not None and baseline is not None:
        raise OptionError("--pivot cannot be combined with --baseline")
    if pivot is not None and form not in MARKUPS:
        raise OptionError(
            f"--pivot cannot be combined with --format {form}, which has a row for each value"
        )
    gathered = gather(places)
    if pivot is None:
        made = boards(
            gathered.records,
            dataset=dataset,
            metric=metric,
            select=select,
            baseline=baseline,
            unverified=gathered.unverified,
        )
        return render(made, form), gathered.problems
    tables = pivoted.pivots(
        gathered.records,
        pivot,
        dataset=dataset,
        metric=metric,
        select=select,
        unverified=gathered.unverified,
    )
    text = "\n".join(pivoted.write(one, MARKUPS[form]) for one in tables)
    return text, gathered.problems

"""From files to a table in one call."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError
from debiasbench.leaderboard import pivot as pivoted
from debiasbench.leaderboard.board import boards
from debiasbench.leaderboard.columns import chosen, ordered
from debiasbench.leaderboard.gather import gather
from debiasbench.leaderboard.render import FORMATS, WRITERS, grid
from debiasbench.leaderboard.terminal import terminal

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
    columns: str | None = None,
    sort: str | None = None,
    styled: bool = False,
) -> tuple[str, list[str]]:
    """Compare all records in files and folders; return the text and a message for each bad record.

    Records that contradict themselves are left out. `form` is one of `FORMATS`. `pivot` is an
    option whose values become columns, see `pivots`. `columns`: names of `COLUMNS`, separated by
    commas. `sort`: the column that orders the rows of each section, instead of the accuracy.
    `styled`: whether the text goes to a terminal, where strong rows are bold. The other arguments
    are those of `boards`.

    Raises `RecordError` if there is no record to compare, and `OptionError` for options that do not
    go together.
    """
    _check(form, pivot=pivot, columns=columns, baseline=baseline, sort=sort)
    names = None if columns is None else chosen(columns)
    gathered = gather(places, select)
    shared = {"dataset": dataset, "metric": metric, "select": select}
    write = partial(terminal, styled=styled) if form == "text" else WRITERS.get(form)
    if pivot is not None:
        tables = pivoted.pivots(gathered.records, pivot, unverified=gathered.unverified, **shared)
        grids = [pivoted.grid(one) for one in tables]
    else:
        made = boards(
            gathered.records,
            baseline=baseline,
            unverified=gathered.unverified,
            **shared,
        )
        if sort is not None:
            made = [ordered(board, sort) for board in made]
        if write is None:
            return FORMATS[form](made), gathered.problems
        grids = [grid(board, form, names) for board in made]
    assert write is not None
    return "\n".join(map(write, grids)), gathered.problems


def _check(form: str, **given: str | None) -> None:
    """Raise `OptionError` for options of which one has no meaning beside another."""
    pivot, columns, baseline, sort = (given[n] for n in ("pivot", "columns", "baseline", "sort"))
    if pivot is not None:
        for name in ("baseline", "columns", "sort"):
            if given[name] is not None:
                raise OptionError(f"--pivot cannot be combined with --{name}")
        if form not in WRITERS:
            raise OptionError(
                f"--pivot cannot be combined with --format {form}, which has a row for each value"
            )
    if columns is not None and form not in WRITERS:
        raise OptionError(
            f"--columns cannot be combined with --format {form}, which has all columns"
        )
    if baseline is None and (sort == "difference" or "difference" in (columns or "").split(",")):
        raise OptionError("The column difference needs --baseline NAME")

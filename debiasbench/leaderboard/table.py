"""From files to a table in one call."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError, UnknownNameError
from debiasbench.leaderboard import panel as panelled
from debiasbench.leaderboard import pivot as pivoted
from debiasbench.leaderboard.board import boards
from debiasbench.leaderboard.columns import COLUMNS, PANEL, chosen, ordered
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
    panel: str | None = None,
    columns: str | None = None,
    sort: str | None = None,
    styled: bool = False,
    index: bool = True,
) -> tuple[str, list[str]]:
    """Compare all records in files and folders; return the text and a message for each bad record.

    Records that contradict themselves are left out. `form` is one of `FORMATS`. `pivot` is an
    option whose values become columns, see `pivots`. `panel`: "groups" compares what methods
    inferred of the training samples with the truth, see `panels`. `columns`: names of `COLUMNS`, or
    of `PANEL`, separated by commas. `sort`: the column that orders the rows of each section,
    instead of the accuracy, or of the AUC in a panel.
    `index`: see `gather`.
    `styled`: whether the text goes to a terminal, where strong rows are bold. The other arguments
    are those of `boards`.

    Raises `RecordError` if there is no record to compare, and `OptionError` for options that do not
    go together.
    """
    _check(form, pivot=pivot, columns=columns, baseline=baseline, sort=sort)
    if panel is not None:
        _check_panel(panel, metric=metric, select=select, baseline=baseline, pivot=pivot)
    known = COLUMNS if panel is None else PANEL
    names = None if columns is None else chosen(columns, known)
    gathered = gather(places, select if panel is None else panelled.RULE, index=index)
    shared = {"dataset": dataset, "metric": metric, "select": select}
    write = partial(terminal, styled=styled) if form == "text" else WRITERS.get(form)
    if panel is not None:
        made = panelled.panels(gathered.records, dataset=dataset, unverified=gathered.unverified)
        if sort is not None:
            made = [ordered(board, sort, known) for board in made]
        if write is None:
            return panelled.FLAT[form](made), gathered.problems
        grids = [panelled.grid(board, form, names) for board in made]
    elif pivot is not None:
        tables = pivoted.pivots(
            gathered.records,
            pivot,
            correct=gathered.correct,
            unverified=gathered.unverified,
            **shared,
        )
        grids = [pivoted.grid(one) for one in tables]
    else:
        made = boards(
            gathered.records,
            baseline=baseline,
            correct=gathered.correct,
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


def _check_panel(panel: str, **given: str | None) -> None:
    """Raise `OptionError` for a panel that there is not, and for options without meaning for it."""
    if panel not in panelled.PANELS:
        raise UnknownNameError("panel", panel, panelled.PANELS)
    for name, value in given.items():
        if value is not None:
            raise OptionError(f"--panel {panel} cannot be combined with --{name}")

"""Boards as text: for a terminal, or as Markdown, LaTeX, CSV, JSON or an HTML table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from debiasbench.leaderboard import cells
from debiasbench.leaderboard.columns import NARROW, WIDE, shown
from debiasbench.leaderboard.flat import as_csv, as_json
from debiasbench.leaderboard.grid import Cell, Grid
from debiasbench.leaderboard.latex import latex
from debiasbench.leaderboard.markup import HTML, MARKDOWN
from debiasbench.leaderboard.tuning import MEANING

if TYPE_CHECKING:
    from debiasbench.leaderboard.board import Board


def _terminal(table: Grid) -> str:
    from debiasbench.leaderboard.terminal import terminal  # rich takes long to import

    return terminal(table)


WRITERS: dict[str, Callable[[Grid], str]] = {
    "markdown": MARKDOWN,
    "latex": latex,
    "html-table": HTML,
    "text": _terminal,
}
"""Format -> the function that writes a table in it."""


def _written(form: str, boards: Sequence[Any]) -> str:
    return render(boards, form)


FORMATS: dict[str, Callable[[Sequence[Any]], str]] = {
    **{name: partial(_written, name) for name in WRITERS},
    "csv": as_csv,
    "json": as_json,
}
"""Format -> the function that writes boards in it."""


def render(boards: Sequence[Board], form: str, columns: Sequence[str] | None = None) -> str:
    """Write boards in one of `FORMATS`; names and options are escaped for it.

    `columns`: names of `COLUMNS`, or None for those that are usual in the format; CSV and JSON
    hold all of them.
    """
    if form not in WRITERS:
        return FORMATS[form](boards)
    return "\n".join(WRITERS[form](grid(board, form, columns)) for board in boards)


def written(grids: Iterable[Grid], form: str, *, styled: bool = False) -> str:
    """Write tables in one of `WRITERS`; `styled`: for a terminal, where strong rows are bold."""
    write = WRITERS[form]
    if form == "text":
        from debiasbench.leaderboard.terminal import terminal

        write = partial(terminal, styled=styled)
    return "\n".join(map(write, grids))


def grid(board: Board, form: str, columns: Sequence[str] | None = None) -> Grid:
    """Lay out a board with everything that one must know to read it."""
    used = shown(columns, board, NARROW if form == "latex" else WIDE)
    rows = [
        [Cell(column.text(row, board), row.marked and column.strong) for column in used]
        for row in board.rows
    ]
    remarks = [
        f"{cells.words(board.metric).capitalize()} accuracy on the test split: mean ± standard "
        f"deviation over seeds, {cells.epoch(board.rule)}. {cells.interval(board.rows)} "
        f"{cells.strong(board.metric)}"
        + (f" {cells.RANK}" if any(column.name == "rank" for column in used) else ""),
        *(
            [f"Minus {board.baseline}: mean difference over common seeds, with its 95 % interval."]
            if board.baseline
            else []
        ),
        board.conditions,
        *board.notes,
        *([MEANING] if any(row.tuning_name for row in board.rows) else []),
        *dict.fromkeys(
            f"{cells.options(row)}." for row in board.rows if row.options or row.found_by
        ),
    ]
    return Grid(
        heading(f"{board.dataset} · {board.model}"),
        [column.heading(board) for column in used],
        rows,
        [cells.section(row) for row in board.rows],
        remarks,
    )


def heading(words: str) -> str:
    """Shorten the checksums in a heading to 8 digits."""
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{24,}\b", r"\1", " ".join(words.split()))

"""Boards as text: Markdown, LaTeX, CSV, JSON or an HTML table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from debiasbench.leaderboard import cells
from debiasbench.leaderboard.flat import as_csv, as_json
from debiasbench.leaderboard.markup import HTML, LATEX, MARKDOWN, Markup

if TYPE_CHECKING:
    from debiasbench.leaderboard.board import Board

MARKUPS = {"markdown": MARKDOWN, "latex": LATEX, "html-table": HTML}


def render(boards: Sequence[Board], form: str) -> str:
    """Write boards in one of `FORMATS`; names and options are escaped for it."""
    return FORMATS[form](boards)


def _prose(board: Board, markup: Markup) -> str:
    """Write a board with everything that one must know to read it."""
    side = list(board.rows[0].side) if board.rows else []
    header = [
        "method",
        f"{cells.words(board.metric)} %",
        "95 % interval",
        "seeds",
        *([f"minus {board.baseline}, points"] if board.baseline else []),
        *(f"{cells.words(metric)} %" for metric in side),
        *cells.COSTS,
    ]
    rows = []
    for row in board.rows:
        texts = [
            row.name,
            cells.flagged(cells.mean(row), board.metric, board.incomplete),
            cells.bounds(row),
            cells.seeds(row),
            *([cells.difference(row)] if board.baseline else []),
            *(
                cells.flagged(cells.percent(row.side[metric]), metric, board.incomplete)
                for metric in side
            ),
            *(cells.cost(heading, [row]) for heading in cells.COSTS),
        ]
        escaped = [markup.text(text) for text in texts]
        if row.marked:
            escaped[:2] = [markup.strong.format(text) for text in escaped[:2]]
        rows.append(escaped)
    remarks = [
        f"{cells.words(board.metric).capitalize()} accuracy on the test split: mean ± standard "
        f"deviation over seeds, {cells.epoch(board.rule)}. {cells.STRONG}",
        *(
            [f"Minus {board.baseline}: mean difference over common seeds, with its 95 % interval."]
            if board.baseline
            else []
        ),
        board.conditions,
        *board.notes,
        *dict.fromkeys(f"{cells.options(row)}." for row in board.rows if row.options),
    ]
    return markup.document(
        f"{board.dataset} · {board.model}",
        header,
        rows,
        [cells.section(row) for row in board.rows],
        remarks,
    )


def _in(markup: Markup) -> Callable[[Sequence[Any]], str]:
    return lambda boards: "\n".join(_prose(board, markup) for board in boards)


FORMATS: dict[str, Callable[[Sequence[Any]], str]] = {
    **{name: _in(markup) for name, markup in MARKUPS.items()},
    "csv": as_csv,
    "json": as_json,
}
"""Format -> the function that writes boards in it."""

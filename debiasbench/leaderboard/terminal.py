"""Tables for a terminal: as many columns as fit into its width."""

from __future__ import annotations

import io
import shutil
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from debiasbench.common.wording import printable

if TYPE_CHECKING:
    from debiasbench.leaderboard.grid import Cell, Grid

GAP = 2  # spaces between columns
NARROWEST = 12  # characters of the first column, which is folded if it does not fit


def terminal(grid: Grid, width: int | None = None, *, styled: bool = False) -> str:
    """Write a table that is at most `width` characters wide, that of the terminal if None.

    Columns that do not fit are left out, from the right, and named below the table. `styled`:
    strong cells are bold, for a terminal.
    """
    width = width or shutil.get_terminal_size().columns
    texts = [[_plain(cell.text) for cell in row] for row in grid.rows]
    header = [_plain(text) for text in grid.header]
    widths = [max(map(cell_len, column)) for column in zip(header, *texts, strict=True)]
    kept = _fitting(widths, width)
    widths[0] = max(
        min(widths[0], width - sum(GAP + w for w in widths[1:kept])), min(widths[0], NARROWEST)
    )
    written = io.StringIO()
    out = Console(
        file=written,
        width=width,
        force_terminal=styled,
        color_system="standard" if styled else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    out.print(Text(_plain(grid.heading), "bold"), end="\n\n")
    out.print(_table(widths[:kept], [[Text(text, "bold") for text in header[:kept]]]))
    out.print("─" * min(width, sum(widths[:kept]) + GAP * (kept - 1)))
    rows: list[list[Text]] = []
    for i, row in enumerate(grid.rows):
        if grid.begins_section(i):
            if rows:
                out.print(_table(widths[:kept], rows))
            out.print(Text(_plain(grid.sections[i]), "italic"))
            rows = []
        rows.append([_text(cell) for cell in row[:kept]])
    if rows:
        out.print(_table(widths[:kept], rows))
    out.print()
    remarks = list(grid.remarks)
    if left_out := header[kept:]:
        remarks.append(
            f"Not shown in {width} characters: {', '.join(left_out)}. A wider terminal or "
            "--format markdown shows them."
        )
    for remark in remarks:
        out.print(Text(_plain(f"- {remark}")))
    return "".join(f"{line.rstrip()}\n" for line in written.getvalue().splitlines())


def _fitting(widths: list[int], width: int) -> int:
    """Return how many columns fit, at least two; the first may be folded."""
    total, kept = min(widths[0], NARROWEST), 1
    for column in widths[1:]:
        total += GAP + column
        if total > width and kept >= 2:
            break
        kept += 1
    return kept


def _table(widths: list[int], rows: list[list[Text]]) -> Table:
    table = Table(box=None, show_header=False, padding=0, pad_edge=False)
    for i, width in enumerate(widths):
        table.add_column(
            justify="right" if i else "left",
            width=width + (GAP if i else 0),
            overflow="fold",
            no_wrap=bool(i),
        )
    for row in rows:
        table.add_row(*row)
    return table


def _plain(text: str) -> str:
    return printable(" ".join(text.split()))


def _text(cell: Cell) -> Text:
    return Text(_plain(cell.text), "bold" if cell.strong else "")

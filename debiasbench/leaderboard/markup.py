"""Markdown and HTML: how each writes a heading, a table with sections, and a remark."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tabulate import tabulate

from debiasbench.common.wording import printable

if TYPE_CHECKING:
    from debiasbench.leaderboard.grid import Cell, Grid


@dataclass(frozen=True)
class Markup:
    """A markup language; `{}` in its strings takes escaped text."""

    table: str  # tabulate's name
    escape: Callable[[str], str]
    heading: str
    strong: str
    remark: str
    above: int  # lines that tabulate writes above the first row
    section: Callable[[str, int], str]  # text and number of columns -> a row across the table

    def text(self, words: str) -> str:
        """Escape text and put it on one line, because a line break would break the table."""
        return self.escape(printable(" ".join(words.split())))

    def cell(self, cell: Cell) -> str:
        """Write a cell."""
        text = self.text(cell.text)
        return self.strong.format(text) if cell.strong else text

    def __call__(self, grid: Grid) -> str:
        """Write a heading, a table and the remarks under it."""
        lines = tabulate(
            [[self.cell(cell) for cell in row] for row in grid.rows],
            headers=[self.text(cell) for cell in grid.header],
            tablefmt=self.table,
            disable_numparse=True,
            colalign=["left", *["right"] * (len(grid.header) - 1)],
        ).splitlines()
        for i in reversed(range(len(grid.rows))):  # from below: lines above keep their numbers
            if grid.begins_section(i):
                title = self.strong.format(self.text(grid.sections[i]))
                lines.insert(self.above + i, self.section(title, len(grid.header)))
        return "\n".join(
            [
                self.heading.format(self.text(grid.heading)),
                *lines,
                "",
                *(self.remark.format(self.text(remark)) for remark in grid.remarks),
                "",
            ]
        )


def _escape_markdown(text: str) -> str:
    """Keep names from becoming markup, table cells or HTML."""
    return re.sub(r"([\\*|<>\[\]`])", r"\\\1", text)


MARKDOWN = Markup(
    table="pipe",
    escape=_escape_markdown,
    heading="### {}\n",
    strong="**{}**",
    remark="- {}",
    above=2,
    section=lambda text, columns: f"| {text} {'|' * columns}",
)
HTML = Markup(
    table="unsafehtml",
    escape=html.escape,
    heading="<h3>{}</h3>",
    strong="<strong>{}</strong>",
    remark="<p>{}</p>",
    above=5,
    section=lambda text, columns: f'<tr><th colspan="{columns}" scope="colgroup">{text}</th></tr>',
)

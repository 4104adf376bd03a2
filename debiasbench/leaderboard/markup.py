"""Markdown and HTML: how each writes a heading, a table with sections, and a remark."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from debiasbench.common.wording import printable

if TYPE_CHECKING:
    from debiasbench.leaderboard.grid import Cell, Grid


@dataclass(frozen=True)
class Markup:
    """A markup language; `{}` in its strings takes escaped text."""

    escape: Callable[[str], str]
    heading: str
    strong: str
    remark: str
    above: Callable[[Sequence[str], Sequence[int]], list[str]]  # header and widths -> lines
    row: Callable[[Sequence[str]], str]  # padded cells, of which the first is on the left
    below: Sequence[str]
    section: Callable[[str, int], str]  # text and number of columns -> a row across the table

    def text(self, words: str) -> str:
        """Escape text and put it on one line, because a line break would break the table."""
        if _HARMLESS.fullmatch(words):
            return words
        return self.escape(printable(" ".join(words.split())))

    def cell(self, cell: Cell) -> str:
        """Write a cell."""
        text = self.text(cell.text)
        return self.strong.format(text) if cell.strong else text

    def __call__(self, grid: Grid) -> str:
        """Write a heading, a table and the remarks under it."""
        header = [self.text(cell) for cell in grid.header]
        columns = [[self.cell(cell) for cell in column] for column in zip(*grid.rows, strict=True)]
        wide = [
            max(len(text) + ROOM, *map(len, of)) for text, of in zip(header, columns, strict=True)
        ]
        lines = self.above(_padded(header, wide), wide)
        columns = [
            [text.ljust(width) for text in of] if first else [text.rjust(width) for text in of]
            for first, width, of in zip(_first(wide), wide, columns, strict=True)
        ]
        for i, row in enumerate(zip(*columns, strict=True)):
            if grid.begins_section(i):
                title = self.strong.format(self.text(grid.sections[i]))
                lines.append(self.section(title, len(grid.header)))
            lines.append(self.row(row))
        return "\n".join(
            [
                self.heading.format(self.text(grid.heading)),
                *lines,
                *self.below,
                "",
                *(self.remark.format(self.text(remark)) for remark in grid.remarks),
                "",
            ]
        )


ROOM = 2  # a column is at least so much wider than its heading
_HARMLESS = re.compile(r"(?!\s)(?:[\w.,:;±–—+=%≈()/-]| (?! ))*(?<!\s)", re.ASCII)


def _first(columns: Sequence[object]) -> list[bool]:
    return [i == 0 for i in range(len(columns))]


def _padded(texts: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        text.ljust(width) if first else text.rjust(width)
        for first, text, width in zip(_first(texts), texts, widths, strict=True)
    ]


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_above(header: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = widths
    marks = [f":{'-' * (first + 1)}", *(f"{'-' * (width + 1)}:" for width in others)]
    return [_markdown_row(header), f"|{'|'.join(marks)}|"]


def _html_row(cells: Sequence[str], tag: str = "td") -> str:
    first, *others = cells
    right = "".join(f'<{tag} style="text-align: right;">{cell}</{tag}>' for cell in others)
    return f"<tr><{tag}>{first}</{tag}>{right}</tr>"


def _html_above(header: Sequence[str], _widths: Sequence[int]) -> list[str]:
    return ["<table>", "<thead>", _html_row(header, "th"), "</thead>", "<tbody>"]


_MARKS = re.compile(r"([\\*|<>\[\]`])")


def _escape_markdown(text: str) -> str:
    """Keep names from becoming markup, table cells or HTML."""
    return _MARKS.sub(r"\\\1", text)


MARKDOWN = Markup(
    escape=_escape_markdown,
    heading="### {}\n",
    strong="**{}**",
    remark="- {}",
    above=_markdown_above,
    row=_markdown_row,
    below=(),
    section=lambda text, columns: f"| {text} {'|' * columns}",
)
HTML = Markup(
    escape=html.escape,
    heading="<h3>{}</h3>",
    strong="<strong>{}</strong>",
    remark="<p>{}</p>",
    above=_html_above,
    row=_html_row,
    below=("</tbody>", "</table>"),
    section=lambda text, columns: f'<tr><th colspan="{columns}" scope="colgroup">{text}</th></tr>',
)

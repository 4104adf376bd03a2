"""Markup languages: how each writes a heading, a table with sections, and a remark."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from debiasbench.common.wording import printable

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "–": "--",
    "—": "---",
    "·": r"$\cdot$",
    "†": r"$\dagger$",
}


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

    def document(
        self,
        heading: str,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        sections: Sequence[str],
        remarks: Sequence[str],
    ) -> str:
        """Write a heading, a table and the remarks under it.

        `rows` are escaped already, because some of their cells are strong. `sections` names the
        section of each row; rows of the same section must be neighbours.
        """
        lines = tabulate(
            rows,
            headers=[self.text(cell) for cell in header],
            tablefmt=self.table,
            disable_numparse=True,
            colalign=["left", *["right"] * (len(header) - 1)],
        ).splitlines()
        for i in reversed(range(len(sections))):  # from below: lines above keep their numbers
            if i == 0 or sections[i] != sections[i - 1]:
                title = self.strong.format(self.text(sections[i]))
                lines.insert(self.above + i, self.section(title, len(header)))
        return "\n".join(
            [
                self.heading.format(self.text(heading)),
                *lines,
                "",
                *(self.remark.format(self.text(remark)) for remark in remarks),
                "",
            ]
        )


def _escape_markdown(text: str) -> str:
    """Keep names from becoming markup, table cells or HTML."""
    return re.sub(r"([\\*|<>\[\]`])", r"\\\1", text)


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


MARKDOWN = Markup(
    table="pipe",
    escape=_escape_markdown,
    heading="### {}\n",
    strong="**{}**",
    remark="- {}",
    above=2,
    section=lambda text, columns: f"| {text} {'|' * columns}",
)
LATEX = Markup(
    table="latex_raw",
    escape=_escape_latex,
    heading="\\paragraph{{{}}}\n",
    strong="\\textbf{{{}}}",
    remark="{}\n",
    above=4,
    section=lambda text, columns: f"\\multicolumn{{{columns}}}{{l}}{{{text}}} \\\\",
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

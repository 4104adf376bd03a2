"""Tables as LaTeX: a float with caption and label that fits into the width of the text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from debiasbench.common.wording import printable

if TYPE_CHECKING:
    from debiasbench.leaderboard.grid import Cell, Grid

PACKAGES = "% \\usepackage{booktabs,graphicx}"
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "[": "{[}",  # after the end of a row it would begin an option
    "]": "{]}",
    "*": "{*}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    '"': "''",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "…": r"\dots{}",
    "†": r"$\dagger$",
    "✓": r"$\surd$",
    "≈": r"$\approx$",
    "✗": r"$\times$",
    "τ": r"$\tau$",
    "²": "\\textsuperscript{2}",
    "‡": r"$\ddagger$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "∞": r"$\infty$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "ε": r"$\varepsilon$",
    "η": r"$\eta$",
    "θ": r"$\theta$",
    "κ": r"$\kappa$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "φ": r"$\varphi$",
    "ω": r"$\omega$",
}
# what pdflatex writes without further packages: ASCII and Latin letters, but for these
_KNOWN = {chr(code) for code in range(0x180)} - set("«»ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ")
_MINUS = re.compile(r"(?<![\w.-])-(?=\d)")  # of a number, not of a name
# a table that is too wide for the text is scaled down, one that is not stays as it is
_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def latex(grid: Grid) -> str:
    """Write a table; its caption describes the numbers, and the notes are below it."""
    columns = len(grid.header)
    lines = [
        PACKAGES,
        r"\begin{table}[tb]",
        r"\centering",
        rf"\caption{{{escape(grid.heading)}. {escape(grid.remarks[0])}}}",
        rf"\label{{{label(grid.heading)}}}",
        _FIT,
        rf"\begin{{tabular}}{{l{'r' * (columns - 1)}}}",
        r"\toprule",
        _row([escape(text) for text in grid.header]),
    ]
    for i, row in enumerate(grid.rows):
        if grid.begins_section(i):
            title = rf"\multicolumn{{{columns}}}{{l}}{{\emph{{{escape(grid.sections[i])}}}}}"
            lines += [r"\midrule", _row([title])]
        lines.append(_row([_cell(cell) for cell in row]))
    lines += [r"\bottomrule", r"\end{tabular}}"]
    if notes := [escape(remark) for remark in grid.remarks[1:]]:
        lines += [r"\par\medskip\begin{minipage}{\linewidth}\footnotesize", r"\raggedright"]
        lines += [*(f"{note}\\par" for note in notes), r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table}", ""])


def escape(text: str) -> str:
    """Escape text for LaTeX and put it on one line."""
    marked = _MINUS.sub("−", printable(" ".join(text.split())))
    return "".join(_ESCAPES[c] if c in _ESCAPES else _character(c) for c in marked)


def _character(c: str) -> str:
    """Write a character that has no escape.

    XeLaTeX and LuaLaTeX have all characters. pdflatex stops at those that it does not know, so it
    writes their number instead.
    """
    return c if c in _KNOWN else rf"\ifdefined\Umathcode {c}\else U+{ord(c):04X}\fi{{}}"


def label(heading: str) -> str:
    """Return a label that is made of the words of a heading."""
    return f"tab:{'-'.join(re.findall('[a-z0-9]+', heading.lower()))}"


def _cell(cell: Cell) -> str:
    return rf"\textbf{{{escape(cell.text)}}}" if cell.strong else escape(cell.text)


def _row(texts: list[str]) -> str:
    return f"{' & '.join(texts)} \\\\"

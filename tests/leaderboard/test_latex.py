"""LaTeX tables are compiled, where there is a LaTeX, with names that break careless tables."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from debiasbench.leaderboard import boards, render
from debiasbench.leaderboard.latex import escape
from tests.leaderboard.test_leaderboard import ERM, LFF, REST, run

NAMES = [
    "a|b\n_<i>%$&{}#~^\\*[x](y)`\"'",
    "\\input{/etc/passwd}\\end{document}",
    "50 % of β ≤ 0.5 → é ü ß “quotes” – — ± × · … † ‡",
    "测试 😀 ą « \u202e \x1b \u0301",
    "$x^2$ & \\\\ %",
    "[2ex] first in a row",
]
PDFLATEX = shutil.which("pdflatex")


def compiled(tables: str, folder: Path) -> str:
    """Compile tables as an article would; return the log."""
    document = (
        "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
        f"\\listoftables\n{tables}\n\\end{{document}}\n"
    )
    (folder / "paper.tex").write_text(document, encoding="utf-8")
    for _ in range(2):  # the second time it reads the list of tables
        made = subprocess.run(
            ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", "paper"],
            cwd=folder,
            capture_output=True,
            timeout=120,
            check=False,
        )
        log = made.stdout.decode("utf-8", "replace")
        assert made.returncode == 0, log[-3000:]
    return log


def named(name: str) -> Any:
    (board,) = boards([*ERM, *LFF, *REST, run("x", 0), run("x", 1, failed=True)], baseline="erm")
    rows = [replace(row, setting=name) for row in board.rows]
    notes = [*board.notes, name]
    return replace(board, rows=rows, dataset=name, conditions=name, notes=notes)


@pytest.mark.slow
@pytest.mark.skipif(PDFLATEX is None, reason="there is no pdflatex")
def test_tables_of_nasty_names_compile_and_fit_into_the_width_of_the_text(tmp_path: Path) -> None:
    tables = render([named(name) for name in NAMES], "latex")
    assert r"\textbf{" in tables
    log = compiled(tables, tmp_path)
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")
    # a table in the text may be a little too wide for a line, a name in the list of tables as well
    wide = [
        float(w) for w in re.findall(r"Overfull \\hbox \((\d+\.\d+)pt too wide\) detected", log)
    ]
    assert not wide


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("é ß", "é ß"),
        ("≤ β ‡", r"$\leq$ $\beta$ $\ddagger$"),
        ("测", r"\ifdefined\Umathcode 测\else U+6D4B\fi{}"),
        ("\x1b", r"\textbackslash{}x1b"),
    ],
)
def test_characters_that_pdflatex_does_not_know_have_their_number(text: str, written: str) -> None:
    assert escape(text) == written

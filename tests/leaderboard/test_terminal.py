"""Tables fit the width of a terminal, and LaTeX tables the width of a page."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from rich.cells import cell_len

from debiasbench.cli.common import table_format
from debiasbench.leaderboard import boards, render
from debiasbench.leaderboard.grid import Cell, Grid
from debiasbench.leaderboard.latex import escape, label, latex
from debiasbench.leaderboard.render import grid
from debiasbench.leaderboard.terminal import terminal
from debiasbench.records.record import Record, to_json
from tests.leaderboard.test_leaderboard import ERM, LFF, REST, run

Cli = Callable[..., Result]


def laid_out(records: list[Record]) -> Grid:
    (board,) = boards(records, baseline="erm")
    return grid(board, "text")


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 132, 200, 500])
def test_a_table_is_as_wide_as_the_terminal_at_most(width: int) -> None:
    long = [run("method" * 10, s, options={"name": "数" * 50}) for s in (0, 1)]
    for records in ([*ERM, *LFF, *REST], [*ERM, *long]):
        whole = laid_out(records)
        text = terminal(whole, width)
        assert all(cell_len(line) <= width for line in text.splitlines())
        lines = text.splitlines()
        shown = next(line for line in lines if line.startswith("method "))
        left_out = " ".join(text.partition(f"Not shown in {width} characters:")[2].split())
        for name in whole.header:
            assert (name in shown) != (name in left_out), name
        assert (width < 200) == bool(left_out) or "数" in text


def test_text_is_exactly_this() -> None:
    assert terminal(laid_out([*ERM, *LFF, *REST]), 64) == EXPECTED


def test_strong_rows_are_bold_on_a_terminal_only() -> None:
    whole = laid_out([*ERM, *LFF])
    assert "\x1b" not in terminal(whole, 80)
    assert re.search(r"\x1b\[1mlff *\x1b\[0m", terminal(whole, 80, styled=True))
    assert not re.search(r"\x1b\[1merm", terminal(whole, 80, styled=True))


def test_names_do_not_become_markup_of_the_terminal() -> None:
    cells = [Cell("[bold]x[/bold] :smile:"), Cell("1")]
    text = terminal(Grid("[red]h", ["method", "n"], [cells], ["[s]"], ["[r] http://x"]), 60)
    assert "[bold]x[/bold] :smile:" in text
    assert "[red]h" in text
    assert "- [r] http://x" in text


@pytest.mark.parametrize(
    ("form", "is_terminal", "out", "expected"),
    [
        (None, True, None, ("text", True)),
        (None, False, None, ("markdown", False)),
        (None, True, Path("x"), ("markdown", False)),
        ("markdown", True, None, ("markdown", True)),
        ("text", False, None, ("text", False)),
    ],
)
def test_the_format_follows_from_where_the_table_goes(
    monkeypatch: pytest.MonkeyPatch, form: Any, is_terminal: bool, out: Any, expected: Any
) -> None:
    monkeypatch.setattr(sys, "stdout", type("Out", (), {"isatty": lambda _self: is_terminal})())
    assert table_format(form, out) == expected


def test_the_command_line_chooses_columns_order_and_format(debiasbench: Cli) -> None:
    Path("records").mkdir()
    for record in [*ERM, *LFF]:
        Path("records", f"{record.spec.stem}.json").write_text(to_json(record))
    words = ("leaderboard", "records", "--format", "text")
    text = debiasbench(*words, "--columns", "seconds, average", "--sort", "aligned").stdout
    assert text.splitlines()[2:7] == [
        "method  seconds  average %",
        "──────────────────────────",
        "no bias labels in training, group labels of validation for selection",
        "erm           8       63.5",
        "lff           8       78.5",
    ]
    page = Path("page.md")
    block = "<!-- debiasbench leaderboard records --columns seconds --sort method -->"
    page.write_text(f"{block}\n<!-- /debiasbench -->\n")
    assert debiasbench("leaderboard", "--update", page).exit_code == 0
    assert "| method   |   seconds |" in page.read_text()
    for more, complaint in {
        ("--columns", "second"): "Did you mean 'seconds'",
        ("--columns", "seconds,seconds"): "names the column seconds twice",
        ("--columns", "difference"): "needs --baseline",
        ("--sort", "difference"): "needs --baseline",
        ("--pivot", "dataset.ratio", "--columns", "seconds"): "cannot be combined with --columns",
        ("--format", "csv", "--columns", "seconds"): "cannot be combined with --format csv",
    }.items():
        result = debiasbench("leaderboard", "records", *more)
        assert result.exit_code == 2
        assert complaint in result.stderr


def test_latex_is_a_float_with_booktabs_caption_and_label_scaled_to_the_text() -> None:
    (board,) = boards([*ERM, *LFF, *REST])
    text = render([board], "latex")
    for part in (
        r"\usepackage{booktabs,graphicx}",
        r"\caption{toy ratio=0.05 $\cdot$ mlp hidden={[}4{]}. Unbiased accuracy on the test split",
        r"\label{tab:toy-ratio-0-05-mlp-hidden-4}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        "method & unbiased \\% & 95 \\% interval & seeds & conflict \\% & aligned \\% & worst group \\% & density \\\\",
        "\\textbf{lff} & \\textbf{78.5 $\\pm$ 1.4} & 76.8 -- 80.2 & 5 & 67.0 & 90.0 & 64.0 $\\ddagger$ & 0.1 \\\\",
    ):
        assert part in text
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 2, 1]
    for name in ("table", "tabular", "minipage"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_latex_escapes_what_begins_options_and_writes_numbers_with_a_minus() -> None:
    assert escape("-1.5 (-2.0 to +0.5) a-1 erm-x") == "$-$1.5 ($-$2.0 to +0.5) a-1 erm-x"
    row = [Cell("[2pt]*", strong=True), Cell('"|`')]
    text = latex(Grid("h & h", ["method", "n"], [row], ["s_1"], ["r%"]))
    assert "\\textbf{{[}2pt{]}{*}} & ''\\textbar{}\\textasciigrave{} \\\\" in text
    assert r"\emph{s\_1}" in text
    assert label("A & b_1 ± é") == "tab:a-b-1"


EXPECTED = """\
toy ratio=0.05 · mlp hidden=[4]

method  unbiased %  95 % interval  seeds       minus erm, points
────────────────────────────────────────────────────────────────
no bias labels in training, group labels of validation for
selection
lff     78.5 ± 1.4    76.8 – 80.2      5  +15.0 (+15.0 to +15.0)
erm     63.5 ± 1.4    61.8 – 65.2      5                       —
conflict bit in training, group labels of validation for
selection
rest    83.5 ± 1.4    81.8 – 85.2      5  +20.0 (+20.0 to +20.0)

- Unbiased accuracy on the test split: mean ± standard deviation
over seeds, at the epoch selected by val_unbiased. 95 %
intervals and tests: over seeds alone, because predictions are
missing, so that intervals are too narrow. Bold: the best of its
section, and those that a paired test (Holm, 5 %) cannot
distinguish from it. Rank: within its section; the ranges hold
together at 95 %.
- Minus erm: mean difference over common seeds, with its 95 %
interval.
- Samples: 200 train (5 % conflicting), 40 val (50 %
conflicting), 40 test (50 % conflicting). Training: epochs=2,
lr=0.1. Made on a machine, torch 2.15.0.
- Worst group (‡): groups have as few as 10 test samples. A
classifier that is right for 83.5 % of every group would show
71.2 % for its worst one by chance, so sections with such a row
are not ranked by it.
- The smallest group of the validation split has 10 samples, so
val_unbiased selects epochs by chance in part.
- Not shown in 64 characters: rank, conflict %, aligned %, worst
group %, density, parameters, MFLOPs to predict, TFLOPs to
train, seconds. A wider terminal or --format markdown shows
them.
"""

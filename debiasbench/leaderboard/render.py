"""Boards as text: Markdown, LaTeX, CSV, JSON or an HTML table. Percent appears here alone."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from debiasbench.leaderboard.frame import COSTS, plain

if TYPE_CHECKING:
    from debiasbench.leaderboard.board import Board, Row

SEEN = {
    "train": {
        "none": "no bias labels in training",
        "conflict": "conflict bit in training",
        "groups": "group labels in training",
    },
    "val": {
        "none": "no bias labels in validation",
        "select": "group labels of validation for selection",
        "fit": "trained on validation with group labels",
    },
}
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "–": "--", "—": "---",
    "·": r"$\cdot$",
}  # fmt: skip


def render(boards: Sequence[Board], form: str) -> str:
    """Write boards in one of `FORMATS`; names and options are escaped for it."""
    return FORMATS[form](boards)


@dataclass(frozen=True)
class _Style:
    """How a markup language writes what a board consists of; `{}` takes escaped text."""

    table: str  # tabulate's name
    escape: Callable[[str], str]
    heading: str
    strong: str
    remark: str
    above: int  # lines that tabulate writes above the first row
    section: Callable[[str, int], str]  # text and number of columns -> a row across the table

    def text(self, words: str) -> str:
        """Escape, on one line: a line break in a name would break the table."""
        return self.escape(" ".join(words.split()))


def _prose(board: Board, style: _Style) -> str:
    """Heading, table, and under it all that one must know to read the table."""
    side = list(board.rows[0].side) if board.rows else []
    header = [
        "method", f"{_words(board.metric)} %", "95 % interval", "seeds",
        *([f"minus {board.baseline}, points"] if board.baseline else []),
        *(f"{_words(m)} %" for m in side),
        "density", "parameters", "MFLOPs to predict", "TFLOPs to train", "seconds",
    ]  # fmt: skip
    rows = []
    for row in board.rows:
        cells = [style.text(cell) for cell in _cells(row, side, board.baseline)]
        if row.marked:
            cells[:2] = [style.strong.format(cell) for cell in cells[:2]]
        rows.append(cells)
    table = tabulate(
        rows,
        headers=[style.text(h) for h in header],
        tablefmt=style.table,
        disable_numparse=True,
        colalign=["left", *["right"] * (len(header) - 1)],
    ).splitlines()
    seen = [f"{SEEN['train'][row.train]}, {SEEN['val'][row.val]}" for row in board.rows]
    for i in reversed(range(len(seen))):  # from below, so that what is above keeps its place
        if i == 0 or seen[i] != seen[i - 1]:
            line = style.section(style.strong.format(style.text(seen[i])), len(header))
            table.insert(style.above + i, line)
    remarks = [
        f"{_words(board.metric).capitalize()} accuracy on the test split, mean ± standard "
        f"deviation over seeds, of the epoch that {board.rule} selects. Strong: the best of its "
        "section and what a paired t-test over common seeds (Holm, 5 %) cannot tell from it.",
        *(
            [f"Minus {board.baseline}: mean difference over common seeds, with its 95 % interval."]
            if board.baseline
            else []
        ),
        board.conditions,
        *board.notes,
        *dict.fromkeys(f"{row.method}: {_options(row)}" for row in board.rows if row.options),
    ]
    return "\n".join(
        [
            style.heading.format(style.text(f"{board.dataset} · {board.model}")),
            *table,
            "",
            *(style.remark.format(style.text(remark)) for remark in remarks),
            "",
        ]
    )


def _cells(row: Row, side: Sequence[str], baseline: str | None) -> list[str]:
    low, high = row.interval
    n = len(row.values)
    planned = n + len(row.failed) + len(row.missing)
    costs = row.costs
    return [
        row.name,
        f"{_percent(row.mean)} ± {_percent(row.deviation)}" if n > 1 else _percent(row.mean),
        f"{_percent(max(low, 0.0))} – {_percent(min(high, 1.0))}" if n > 1 else "—",
        str(n) if n == planned else f"{n} of {planned}",
        *([_difference(row)] if baseline else []),
        *(_percent(row.side[m]) for m in side),
        _number(costs["density"], "{:.4g}"),
        _number(costs["active_parameters"], "{:,.0f}"),
        _number(costs["inference_flops"] / 1e6, "{:,.4g}"),
        _number(costs["training_flops"] / 1e12, "{:,.4g}"),
        _number(costs["training_seconds"], "{:,.0f}"),
    ]


def _csv(boards: Sequence[Board]) -> str:
    out = io.StringIO()
    rows = [_flat(board, row) for board in boards for row in board.rows]
    writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _flat(board: Board, row: Row) -> dict[str, object]:
    return {
        "dataset": board.dataset,
        "model": board.model,
        "metric": board.metric,
        "select": board.rule,
        "train_labels": row.train,
        "val_use": row.val,
        "method": row.method,
        "setting": row.setting,
        "mean": _blank(row.mean),
        "deviation": _blank(row.deviation),
        "low": _blank(row.interval[0]),
        "high": _blank(row.interval[1]),
        "baseline": board.baseline,
        "difference": _blank(row.difference[0]),
        "difference_low": _blank(row.difference[1]),
        "difference_high": _blank(row.difference[2]),
        "seeds": " ".join(map(str, row.values)),
        "failed_seeds": " ".join(map(str, row.failed)),
        "missing_seeds": " ".join(map(str, row.missing)),
        "marked": row.marked,
        # every board has the same columns, whichever metric it ranks by
        **{m: _blank(row.mean if m == board.metric else row.side.get(m, math.nan))
           for m in ("conflict", "aligned", "worst_group")},
        **{c: _blank(row.costs[c]) for c in COSTS},
        "options": json.dumps(row.options, sort_keys=True),
        "training": json.dumps(row.training, sort_keys=True),
        "records": " ".join(row.records),
    }  # fmt: skip


def _json(boards: Sequence[Board]) -> str:
    data = [
        {
            "dataset": b.dataset,
            "model": b.model,
            "metric": b.metric,
            "select": b.rule,
            "conditions": b.conditions,
            "notes": b.notes,
            "rows": [_flat(b, r) | {"values": r.values, "failed": r.failed, "missing": r.missing,
                                    "options": r.options, "training": r.training,
                                    "records": r.records} for r in b.rows],
        }
        for b in boards
    ]  # fmt: skip
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _difference(row: Row) -> str:
    mean, low, high = (100 * value for value in row.difference)
    return "—" if math.isnan(mean) else f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def _percent(value: float) -> str:
    return _number(100 * value, "{:.1f}")


def _number(value: float, form: str) -> str:
    return "—" if math.isnan(value) else form.format(value)


def _blank(value: float) -> float | None:
    return None if math.isnan(value) else value


def _words(name: str) -> str:
    return name.replace("_", " ")


def _options(row: Row) -> str:
    return ", ".join(f"{k}={plain(v)}" for k, v in sorted(row.options.items())) + "."


def _escape_markdown(text: str) -> str:
    """Keep names from becoming markup, table cells or HTML."""
    return re.sub(r"([\\*|<>\[\]`])", r"\\\1", text)


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


MARKDOWN = _Style(
    table="pipe",
    escape=_escape_markdown,
    heading="### {}\n",
    strong="**{}**",
    remark="- {}",
    above=2,
    section=lambda text, columns: f"| {text} {'|' * columns}",
)
LATEX = _Style(
    table="latex_raw",
    escape=_escape_latex,
    heading="\\paragraph{{{}}}\n",
    strong="\\textbf{{{}}}",
    remark="{}\n",
    above=4,
    section=lambda text, columns: f"\\multicolumn{{{columns}}}{{l}}{{{text}}} \\\\",
)
HTML = _Style(
    table="unsafehtml",
    escape=html.escape,
    heading="<h3>{}</h3>",
    strong="<strong>{}</strong>",
    remark="<p>{}</p>",
    above=5,
    section=lambda text, columns: f'<tr><th colspan="{columns}" scope="colgroup">{text}</th></tr>',
)
FORMATS: dict[str, Callable[[Sequence[Any]], str]] = {
    "markdown": lambda boards: "\n".join(_prose(b, MARKDOWN) for b in boards),
    "latex": lambda boards: "\n".join(_prose(b, LATEX) for b in boards),
    "csv": _csv,
    "json": _json,
    "html-table": lambda boards: "\n".join(_prose(b, HTML) for b in boards),
}
"""How boards can be written."""

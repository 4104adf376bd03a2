"""Examples of the texts of each group, as a table in a terminal and as an HTML page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from debiasbench.common.wording import printable, shortened
from debiasbench.core.texts import Texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debiasbench.core.data import Split, Task

MOST_GROUPS = 40  # of a table in a terminal
WIDTH = 72  # characters of a line of the table
MOST_SHORT, MOST_LONG = 200, 5000  # characters of a text in the table, and on the page

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; }
h2 { font-size: 1em; margin: 2em 0 0.5em; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
td { border: 1px solid #ccc; padding: 0.3em 0.6em; vertical-align: top;
     white-space: pre-wrap; overflow-wrap: anywhere; }
""".strip()


def text_table(task: Task, split: Split, *, each: int = 2) -> str:
    """Return a table with `each` texts of every group that has samples; * marks aligned groups."""
    from tabulate import tabulate

    rows = []
    groups = list(_groups(task, split, each))
    for label, bias, mark, count, samples in groups[:MOST_GROUPS]:
        for number, texts in enumerate(samples):
            first = (label, f"{bias}{mark}", f"{count:,}") if number == 0 else ("", "", "")
            lines = [_line(text, MOST_SHORT) for text in texts]
            shown = "\n".join(_marked(lines))
            # tabulate takes a cell "False" for a number where it wraps text
            rows.append((*first, f"{shown} " if shown in {"True", "False"} else shown))
    table = tabulate(
        rows,
        ("class", "bias", "samples", "examples"),
        "simple",
        disable_numparse=True,
        colalign=("left", "left", "right", "left"),
        maxcolwidths=[None, None, None, WIDTH],
    )
    more = len(groups) - MOST_GROUPS
    return table + (f"\nand {more:,} more groups" if more > 0 else "")


def text_page(task: Task, split: Split, title: str, *, each: int = 12) -> str:
    """Return an HTML page with `each` texts of every group that has samples; all is escaped."""
    parts = [
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{_html(title)}</title>\n<style>\n{STYLE}\n</style>\n<h1>{_html(title)}</h1>",
    ]
    for label, bias, mark, count, samples in _groups(task, split, each):
        kind = "aligned" if mark else "conflicting"
        parts.append(
            f"<h2>{_html(label)} · {_html(bias)} ({kind}, {count:,} samples)</h2>\n<table>"
        )
        for texts in samples:
            cells = "".join(f'<td dir="auto">{_html(shortened(t, MOST_LONG))}</td>' for t in texts)
            parts.append(f"<tr>{cells}</tr>")
        parts.append("</table>")
    return "\n".join(parts) + "\n</html>\n"


def _groups(
    task: Task, split: Split, each: int
) -> Iterator[tuple[str, str, str, int, list[tuple[str, ...]]]]:
    """Yield class, bias value, " *" if aligned, size and examples of each group with samples.

    Examples are spread evenly over the group, so they are the same each time.
    """
    import torch

    assert isinstance(split.x, Texts)
    order = torch.argsort(split.group, stable=True)
    ends = task.group_counts(split).cumsum(0).tolist()
    for group, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        if begin == end:
            continue
        chosen = torch.linspace(begin, end - 1, min(each, end - begin)).round().long()
        samples = [split.x[index] for index in order[chosen].tolist()]
        c, b = divmod(group, len(task.biases))
        mark = " *" if task.aligned[c, b] else ""
        yield task.classes[c], task.biases[b], mark, end - begin, samples


def _line(text: str, most: int) -> str:
    """Return a text as one line that no terminal obeys."""
    return shortened(printable(" ".join(text.split())), most)


def _marked(lines: list[str]) -> list[str]:
    """Return the texts of a sample, numbered if there are several."""
    return lines if len(lines) == 1 else [f"{i}: {line}" for i, line in enumerate(lines, 1)]


def _html(text: str) -> str:
    return escape(printable(text))

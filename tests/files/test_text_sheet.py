"""Examples of texts: every group that has samples is shown, and no program obeys a text."""

from __future__ import annotations

from html.parser import HTMLParser

import torch

from debiasbench import Split, Task
from debiasbench.core.texts import Texts
from debiasbench.files.text_sheet import text_page, text_table

NASTY = "<script>alert(1)</script> \x1b[31mred \u202eright"


def task(texts: list[tuple[str, ...]], biases: tuple[str, ...] = ("u", "<b>")) -> Task:
    n = len(texts)
    y, bias = torch.arange(n) % 2, torch.arange(n) // 2 % 2
    split = Split(Texts.of(texts), y, bias, 2)
    return Task(split, split, split, ("no", "yes"), biases, torch.eye(2).bool())


class Cells(HTMLParser):
    """Collects the tags and the text of the cells of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[str] = []
        self.titles: list[str] = []
        self.last = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        self.last = tag
        if tag == "td":
            self.cells.append("")
        if tag == "h2":
            self.titles.append("")

    def handle_data(self, data: str) -> None:
        if self.last == "td" and data.strip():
            self.cells[-1] += data
        if self.last == "h2" and data.strip():
            self.titles[-1] += data


def test_the_table_has_examples_of_every_group_with_its_size() -> None:
    made = task([(f"text {i}",) for i in range(40)])
    lines = text_table(made, made.train).splitlines()
    rows = [line.split() for line in lines[2:]]
    assert rows[0] == ["no", "u", "*", "10", "text", "0"]
    assert rows[1] == ["text", "36"]  # the last of the group
    assert [row[:3] for row in rows[2::2]] == [
        ["no", "<b>", "10"],
        ["yes", "u", "10"],
        ["yes", "<b>", "*"],
    ]
    assert len(rows) == 8


def test_a_text_that_reads_like_a_truth_value_is_shown_as_it_is() -> None:
    made = task([("False",), ("True",)] * 4)
    rows = [line.split() for line in text_table(made, made.train, each=1).splitlines()[2:]]
    assert sorted(row[-1] for row in rows) == ["False", "False", "True", "True"]


def test_pairs_are_numbered_and_long_texts_are_shortened() -> None:
    made = task([(f"first {i}", "second " * 200) for i in range(4)])
    table = text_table(made, made.train, each=1)
    assert "1: first 0" in table
    assert "2: second" in table
    assert max(map(len, table.splitlines())) <= 100
    assert len(table) < 2500


def test_a_terminal_gets_no_control_characters() -> None:
    made = task([(NASTY,)] * 4)
    table = text_table(made, made.train)
    assert "\x1b" not in table
    assert "\u202e" not in table
    assert "<script>" in table


def test_the_page_shows_texts_as_they_are_and_contains_none_of_their_markup() -> None:
    made = task([(f"{NASTY} {i}", 'a "quoted"\nline') for i in range(40)])
    page = text_page(made, made.train, "<title> & more", each=3)
    cells = Cells()
    cells.feed(page)
    assert cells.tags == {"html", "meta", "title", "style", "h1", "h2", "table", "tr", "td"}
    assert len(cells.cells) == 4 * 3 * 2
    assert cells.cells[0].startswith("<script>alert(1)</script> \\x1b[31mred \\u202eright 0")
    assert cells.cells[1] == 'a "quoted"\nline'
    assert cells.titles[1] == "no · <b> (conflicting, 10 samples)"
    assert "\x1b" not in page
    assert "<title> & more" not in page


def test_a_group_without_samples_is_left_out() -> None:
    made = task([(f"text {i}",) for i in range(4)])
    part = Split(Texts.of([("a",), ("b",)]), torch.tensor([0, 1]), torch.tensor([0, 0]), 2)
    table = text_table(made, part)
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["no", "yes"]

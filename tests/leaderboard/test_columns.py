"""Which columns a table has, in which order its rows are, and what a missing baseline changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from debiasbench.common.errors import UnknownNameError
from debiasbench.leaderboard import COLUMNS, Board, boards, render
from debiasbench.leaderboard.columns import ordered
from debiasbench.records.record import Record
from debiasbench.specs.spec import Choice
from tests.leaderboard.test_leaderboard import ERM, LFF, REST, particular, run
from tests.records.test_record import make_record


def elsewhere(records: list[Record]) -> list[Record]:
    """Make the same runs with another network."""
    specs = [replace(record.spec, model=Choice("cnn")) for record in records]
    return [replace(r, spec=spec, id=spec.id) for r, spec in zip(records, specs, strict=True)]


def header(text: str) -> list[str]:
    return [cell.strip() for cell in text.splitlines()[2].split("|")[1:-1]]


def test_a_table_without_the_baseline_has_a_note_and_the_others_have_differences() -> None:
    made = boards([*ERM, *LFF, *elsewhere(LFF)], baseline="erm")
    assert [board.baseline for board in made] == [None, "erm"]
    assert particular(made[0].notes) == [
        "There is no row erm here, so there are no differences to it."
    ]
    texts = render(made, "markdown").split("### ")[1:]
    assert ["minus erm, points" in text for text in texts] == [False, True]


def test_a_baseline_that_no_table_has_is_an_error_that_names_all_rows() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'erm'.* Available: erm, lff"):
        boards([*ERM, *elsewhere(LFF)], baseline="erma")


def test_columns_are_those_that_were_chosen_with_the_method_first() -> None:
    made = boards([*ERM, *LFF], baseline="erm")
    names = ("method", "seconds", "difference", "average", "unbiased", "inference_flops")
    assert header(render(made, "markdown", names)) == [
        "method",
        "seconds",
        "minus erm, points",
        "average %",
        "unbiased %",
        "MFLOPs to predict",
    ]
    lines = render(made, "markdown", names).splitlines()
    lff = next(line for line in lines if "lff" in line)
    assert lff.split("|")[1:5] == [
        " **lff**  ",
        "         8 ",
        " +15.0 (+15.0 to +15.0) ",
        "        78.5 ",
    ]


def test_every_column_can_be_shown_and_sorted_by() -> None:
    for name in COLUMNS:
        (board,) = boards([*REST, *ERM, *LFF], baseline="erm")
        board = ordered(board, name)
        assert len(header(render([board], "markdown", (name,)))) == 1
        assert [row.level for row in board.rows] == sorted(row.level for row in board.rows)


def order(board: Board) -> list[str]:
    return [row.method for row in board.rows]


def test_rows_are_sorted_within_their_section_best_first_and_undefined_last() -> None:
    slow = [
        replace(record, cost=replace(record.cost, training_seconds=1.0))
        for record in [run("slow", s, (9, 5, 5, 9)) for s in range(2)]
        if record.cost is not None
    ]
    failed = run("failed", 0, failed=True)
    records = [*ERM, *LFF, *slow, failed]
    (board,) = boards(records)
    assert order(board) == ["lff", "slow", "erm", "failed"]
    assert order(ordered(board, "method")) == ["erm", "failed", "lff", "slow"]
    assert order(ordered(board, "aligned")) == ["erm", "lff", "slow", "failed"]
    assert order(ordered(board, "seconds")) == ["slow", "erm", "lff", "failed"]
    with pytest.raises(UnknownNameError, match="Did you mean 'seconds'"):
        ordered(board, "second")


def test_a_row_alone_in_its_section_is_not_strong() -> None:
    (board,) = boards([*ERM, *REST])
    assert [row.marked for row in board.rows] == [False, False]
    (board,) = boards([*ERM, LFF[0], *REST])  # one seed is not compared
    assert [row.marked for row in board.rows] == [False, False, False]
    (board,) = boards([*ERM, *LFF, *REST])
    assert [row.marked for row in board.rows] == [True, False, False]


def test_a_heading_holds_no_long_checksum() -> None:
    digest = "0123456789abcdef" * 4
    spec = replace(ERM[0].spec, dataset=Choice("birds", {"digest": digest}))
    made = boards([make_record(spec)])
    assert made[0].dataset == f"birds digest={digest}"
    assert render(made, "markdown").startswith("### birds digest=01234567 · mlp")
    assert r"\label{tab:birds-digest-01234567-mlp-hidden-4}" in render(made, "latex")

"""Figures: what is drawn, where it is, and what both writers do with names of strangers."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from click.testing import Result

from debiasbench.common.errors import UnknownNameError
from debiasbench.leaderboard import boards
from debiasbench.leaderboard.board import Board
from debiasbench.leaderboard.figures import (
    PARETO,
    Figure,
    Ranked,
    density,
    groups,
    of_ranks,
    pareto,
    ranks,
    svg,
)
from debiasbench.leaderboard.figures.axes import accuracy_axis, density_axis, log_axis
from debiasbench.leaderboard.figures.figure import Bar, Dots, Level, Line, Square, Steps
from debiasbench.leaderboard.figures.layout import GAP, layout, spread
from debiasbench.records.record import Record
from tests.leaderboard.test_leaderboard import run

Cli = Callable[..., Result]
SVG = "{http://www.w3.org/2000/svg}"


def costing(record: Record, **costs: Any) -> Record:
    """Return a record with other costs."""
    assert record.cost is not None
    return replace(record, cost=replace(record.cost, **costs))


def sparse(
    method: str, at: float, right: int, seed: int = 0, *, option: str = "density", **options: Any
) -> Record:
    """Return a run at a density, with so many right samples of ten in the conflicting groups."""
    hits = (10, right + seed % 2, right, 10)
    record = run(method, seed, hits, options={option: at, **options})
    return costing(record, density=at, active_parameters=round(1000 * at))


def dense(method: str, right: int, seed: int = 0) -> Record:
    return costing(
        run(method, seed, (10, right + seed % 2, right, 10)), density=1.0, active_parameters=1000
    )


SEEDS = range(3)
CURVE = [
    *(
        sparse("thin", at, right, s)
        for at, right in ((0.01, 3), (0.1, 7), (0.04, 6))
        for s in SEEDS
    ),
    *(dense("full", 2, s) for s in SEEDS),
    *(dense("other", 5, s) for s in SEEDS),
]


def board_of(records: list[Record], **arguments: Any) -> Board:
    (board,) = boards(records, **arguments)
    return board


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def of_kind(figure: Figure, kind: type) -> list[Any]:
    return [mark for mark in figure.marks if isinstance(mark, kind)]


def texts(picture: str) -> list[str]:
    """Return the texts that are seen; a title in a text is not."""
    nodes = ET.fromstring(picture).iter(f"{SVG}text")
    return ["".join([node.text or "", *(child.tail or "" for child in node)]) for node in nodes]


# --- accuracy against density -----------------------------------------------------------------


def test_rows_that_differ_in_density_alone_are_one_line_and_dense_rows_are_levels() -> None:
    figure = drawn(density(board_of(CURVE)))
    (line,) = of_kind(figure, Line)
    assert line.name == "thin"
    assert [point.x for point in line.points] == pytest.approx([0.01, 0.04, 0.1])
    row = next(r for r in board_of(CURVE).rows if r.options.get("density") == 0.04)
    middle = line.points[1]
    assert (middle.y, middle.low, middle.high) == (row.mean, row.interval.low, row.interval.high)
    levels = of_kind(figure, Level)
    assert {level.name for level in levels} == {"full", "other"}
    assert all(level.low < level.y < level.high for level in levels)


def test_other_options_make_other_lines_and_their_names_do_not_repeat_the_density() -> None:
    records = [
        sparse("thin", at, 4, s, option="sparse.density", grow=grow)
        for at in (0.05, 0.2)
        for grow in ("random", "gradient")
        for s in SEEDS
    ]
    lines = of_kind(drawn(density(board_of(records))), Line)
    assert {line.name for line in lines} == {"thin (grow=random)", "thin (grow=gradient)"}
    assert all(len(line.points) == 2 for line in lines)


def test_an_option_of_another_name_that_sets_the_density_is_found() -> None:
    records = [
        costing(run("pruned", s, options={"keep": keep, "rounds": 3}), density=keep / 100)
        for keep in (5, 20)
        for s in SEEDS
    ]
    (line,) = of_kind(drawn(density(board_of(records))), Line)
    assert line.name == "pruned"
    assert [point.x for point in line.points] == pytest.approx([0.05, 0.2])


def test_a_single_density_is_a_dot_with_its_name() -> None:
    figure = drawn(density(board_of([*CURVE[:3], *CURVE[-3:]])))
    (dots,) = of_kind(figure, Dots)
    assert dots.points[0].name == "thin"
    assert not of_kind(figure, Line)


def test_there_is_no_figure_of_dense_networks_alone() -> None:
    assert density(board_of(CURVE[-6:])) is None


def test_of_many_dense_rows_only_the_best_of_each_section_and_the_baseline_have_names() -> None:
    many = [dense(f"m{i}", i % 6 + 1, s) for i in range(9) for s in SEEDS]
    board = board_of([*CURVE[:9], *many], baseline="m0")
    levels = of_kind(drawn(density(board)), Level)
    assert len(levels) == 9
    best = max((row for row in board.rows if row.costs["density"] == 1), key=lambda r: r.mean)
    assert {level.name for level in levels if level.name} == {best.name, "m0"}
    assert "7 more lines" in drawn(density(board)).caption


def test_rows_without_a_result_or_out_of_date_are_named_and_not_drawn() -> None:
    board = board_of([*CURVE, run("broken", 0, failed=True)])
    rows = [replace(row, stale="old") if row.name == "other" else row for row in board.rows]
    figure = drawn(density(replace(board, rows=rows)))
    assert "broken" in figure.caption
    assert "out of date: other" in figure.caption
    assert "other" not in figure.description


# --- axes and layout --------------------------------------------------------------------------


def test_equal_factors_are_equally_far_apart_on_a_log_axis() -> None:
    axis = density_axis("density", [0.01, 0.1, 1.0])
    places = [axis.place(value) for value in (0.01, 0.1, 1.0)]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1])
    assert [tick.text for tick in axis.ticks] == ["0.01", "0.1", "1"]
    assert 0 < places[0] < places[2] < 1


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.1], [0.002, 5e6], [900.0, 1100.0]])
def test_a_log_axis_holds_its_values_and_has_two_to_eight_ticks(values: list[float]) -> None:
    axis = log_axis("cost", values)
    assert axis.low < min(values) <= max(values) < axis.high
    assert 2 <= len(axis.ticks) <= 8
    assert all(axis.low <= tick.at <= axis.high for tick in axis.ticks)


@pytest.mark.parametrize("values", [[0.5], [0.0, 1.0], [0.801, 0.802], [-0.3, 1.2], [0.33, 0.58]])
def test_an_accuracy_axis_holds_its_values_within_0_and_100(values: list[float]) -> None:
    axis = accuracy_axis("accuracy", [*values, math.nan])
    assert 0 <= axis.low <= max(min(values), 0)
    assert min(max(values), 1) <= axis.high <= 1
    assert len(axis.ticks) >= 2


def test_labels_are_moved_apart_no_further_than_needed() -> None:
    placed = spread([100.0, 101.0, 102.0, 200.0], 0.0, 300.0)
    assert placed == pytest.approx([101 - GAP, 101, 101 + GAP, 200])
    assert spread([5.0, 299.0], 10.0, 290.0) == [10.0, 290.0]


def test_a_band_holds_its_line_and_every_label_is_in_the_picture() -> None:
    figure = drawn(density(board_of(CURVE)))
    at = layout(figure)
    for point in of_kind(figure, Line)[0].points:
        assert at.y(point.high) < at.y(point.y) < at.y(point.low)
    heights = sorted(label.y for label in at.labels)
    assert all(later - earlier >= GAP - 1e-9 for earlier, later in pairwise(heights))
    assert {label.text for label in at.labels} == {"thin", "full", "other"}
    assert all(at.right < label.x < at.width and 0 < label.y < at.height for label in at.labels)


# --- Pareto -----------------------------------------------------------------------------------


def standing(**rows: tuple[float, int, int]) -> dict[str, str]:
    """Return how each row is said to stand: name -> MFLOPs, right samples, and of the last seed."""
    records = [
        costing(
            run(name, s, (10, last if s == 2 else right, right, 10)), inference_flops=cost * 1e6
        )
        for name, (cost, right, last) in rows.items()
        for s in SEEDS
    ]
    figure = drawn(pareto(board_of(records), "inference_flops"))
    points = [point for mark in of_kind(figure, Dots) for point in mark.points]
    return {p.text.split(",")[0]: p.text.rstrip(".").rpartition(", ")[2] for p in points}


def test_the_front_is_the_best_at_each_cost_and_noise_does_not_dominate() -> None:
    # without predictions the test is the paired t over seeds: a constant difference is significant
    found = standing(
        cheap=(1.0, 4, 4),
        good=(10.0, 8, 8),
        worse=(10.0, 6, 6),  # significantly worse at the same cost
        near=(10.0, 8, 6),  # worse in one seed of three, and no cheaper one is as good
        dear=(10.6, 8, 8),  # as good as `good`, which is 6 % cheaper
    )
    assert found == {
        "cheap": "front",
        "good": "front",
        "worse": "dominated",
        "near": "within the noise of the front",
        "dear": "dominated",
    }


def test_less_than_five_percent_cheaper_does_not_dominate() -> None:
    assert standing(a=(10.0, 8, 8), b=(10.4, 8, 8)) == {
        "a": "front",
        "b": "within the noise of the front",
    }


def test_rows_of_one_seed_are_not_compared_and_sections_have_fronts_of_their_own() -> None:
    records = [
        *(run("a", s, (10, 4, 4, 10)) for s in SEEDS),
        run("lucky", 0, (10, 10, 10, 10)),
        *(run("b", s, (10, 2, 2, 10), supervision=("groups", "none")) for s in SEEDS),
    ]
    figure = drawn(pareto(board_of(records), "training_flops"))
    assert len(of_kind(figure, Steps)) == 2
    faint = [p.name for mark in of_kind(figure, Dots) if mark.look == "faint" for p in mark.points]
    assert faint == ["lucky"]
    assert "single seed: lucky" in figure.caption
    assert [key.series for key in figure.keys][:2] == [0, 1]


def test_seconds_of_different_machines_are_not_drawn() -> None:
    board = board_of(CURVE)
    assert "a machine" in drawn(pareto(board, "seconds")).caption
    assert pareto(replace(board, hardware=("a machine", "another")), "seconds") is None


def test_every_cost_has_a_figure_and_rows_without_it_are_listed() -> None:
    board = board_of(CURVE)
    for cost in PARETO:
        drawn(pareto(board, cost))
    unknown = {**board.rows[0].costs, "inference_flops": math.nan}
    rows = [replace(board.rows[0], costs=unknown), *board.rows[1:]]
    caption = drawn(pareto(replace(board, rows=rows), "inference_flops")).caption
    assert f"without inference flops: {rows[0].name}" in caption
    with pytest.raises(UnknownNameError, match="Did you mean 'seconds'"):
        pareto(board, "second")


# --- ranks and groups -------------------------------------------------------------------------


def test_ranks_are_bars_from_the_best_to_the_worst_rank_with_a_dot_within() -> None:
    board = board_of(CURVE)
    figure = drawn(ranks(board))
    bars = of_kind(figure, Bar)
    ranked = sorted((r for r in board.rows if r.rank), key=lambda r: -r.mean)
    assert [tick.text for tick in figure.y.ticks] == [row.name for row in ranked]
    assert [(bar.low, bar.high) for bar in bars] == [row.rank[:2] for row in ranked if row.rank]
    assert all(bar.low <= bar.at <= bar.high for bar in bars)
    assert [bar.strong for bar in bars] == [row.marked for row in ranked]
    assert ranks(board_of(CURVE[:1])) is None


def test_mean_ranks_are_drawn_like_ranks() -> None:
    rows = [Ranked("a", 1.3, 1, 2.5, strong=True), Ranked("b", 2.7, 1.5, 3)]
    picture = svg(of_ranks("Mean ranks", [("", rows)], label="mean rank over 3 data sets"))
    assert "a: rank 1.3, between 1 and 2.5." in picture
    assert "mean rank over 3 data sets" in texts(picture)


def test_each_group_has_its_mean_accuracy_and_its_samples_and_small_ones_are_hatched() -> None:
    records = [run("erm", s, (9, 5 + s, 4, 10)) for s in SEEDS]
    figure = drawn(groups("erm", records, "last"))
    squares = of_kind(figure, Square)
    assert [round(s.value, 6) for s in squares] == [0.9, 0.6, 0.4, 1.0]
    assert [(s.x, s.y) for s in squares] == [(0, 0), (1, 0), (0, -1), (1, -1)]
    picture = svg(figure)
    assert {"90.0", "60.0", "40.0", "100.0", "n=10"} <= set(texts(picture))
    assert picture.count('class="hatch"') == 4 + 1  # and the key
    assert groups("erm", [run("erm", 0, failed=True)], "last") is None

"""Methods over data sets: what is matched, ranked and compared, and what stays missing."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from scipy import stats

from debiasbench import Supervision
from debiasbench.common.errors import OptionError, RecordError, UnknownNameError
from debiasbench.leaderboard import boards, cells
from debiasbench.leaderboard.across import across
from debiasbench.leaderboard.across_text import as_csv, as_json, entry, grids
from debiasbench.leaderboard.comparison import Comparison
from debiasbench.leaderboard.crossed import Groups, parts
from debiasbench.leaderboard.latex import latex
from debiasbench.leaderboard.lines import Across, Line
from debiasbench.leaderboard.markup import HTML, MARKDOWN
from debiasbench.leaderboard.orders import critical_distance, friedman, places
from debiasbench.leaderboard.page import regenerated
from debiasbench.leaderboard.ranks import rank_intervals
from debiasbench.leaderboard.row import Difference
from debiasbench.leaderboard.table import table
from debiasbench.leaderboard.terminal import terminal
from debiasbench.leaderboard.tuning import Tuned
from debiasbench.records.correct import Correct
from debiasbench.records.record import Record, to_json
from debiasbench.specs.spec import Choice
from tests.records.test_record import SPEC, make_record

Cli = Callable[..., Result]
GROUP = np.repeat(np.arange(4, dtype=np.uint16), 10)  # of the 40 test samples


def on(
    dataset: str,
    method: str,
    right: int,
    *,
    seeds: Collection[int] = range(3),
    failed: Collection[int] = (),
    options: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    dataset_options: dict[str, Any] | None = None,
    seen: tuple[str, str] = ("none", "none"),
    made_by: str = "debiasbench 1",
    revisions: dict[str, int] | None = None,
    **task: Any,
) -> list[Record]:
    """Runs of which each has the same `right` of 40 test samples, ten in each of four groups."""
    made = []
    hits = tuple(int(np.clip(right - 10 * g, 0, 10)) for g in range(4))
    for seed in seeds:
        spec = replace(
            SPEC,
            dataset=Choice(dataset, dataset_options or {}),
            method=Choice(method, options or {}),
            training={**SPEC.training, **(training or {})},
            seed=seed,
            revisions=revisions or {},
        )
        record = make_record(
            spec,
            hits,
            failed=seed in failed,
            supervision=Supervision(*seen),  # type: ignore[arg-type]
        )
        facts = replace(record.task, fingerprint=f"{spec.dataset}", **task)
        plugins = {**record.provenance.plugins, "method": made_by}
        made.append(
            replace(record, task=facts, provenance=replace(record.provenance, plugins=plugins))
        )
    return made


def line(made: Across, name: str) -> Line:
    (found,) = [line for line in made.lines if line.name == name]
    return found


def counts(made: Across, one: str, other: str) -> list[int]:
    for pair in made.pairs:
        names = made.lines[pair.one].name, made.lines[pair.other].name
        found = pair.counts()
        if names == (one, other):
            return [found["better"], found["worse"], found["neither"]]
        if names == (other, one):
            return [found["worse"], found["better"], found["neither"]]
    raise AssertionError(f"{one} and {other} are not compared")


# --- missing cells -----------------------------------------------------------------------------

TABLE = {"A": (36, 34, 24, 24), "B": (32, 32, 20, 22), "C": (None, None, 28, 28)}  # of 40


def example() -> Across:
    """Four data sets on which C was run on two only, and is better than A on both."""
    records = [
        run
        for method, of in TABLE.items()
        for k, right in enumerate(of)
        if right is not None
        for run in on(f"d{k}", method, right)
    ]
    return across(records)


def test_what_is_missing_is_not_imputed_so_that_the_best_on_common_data_sets_is_seen() -> None:
    made = example()
    assert [(of.name, of.complete) for of in made.lines] == [
        ("A", True),
        ("B", True),
        ("C", False),
    ]
    ranks = [of.mean_rank and (of.mean_rank.mean, of.mean_rank.lines) for of in made.lines]
    assert ranks == [(1.0, 2), (2.0, 2), None]  # C is not ranked, and does not move the others
    assert counts(made, "C", "A") == [2, 0, 0]
    assert counts(made, "C", "B") == [2, 0, 0]
    assert counts(made, "A", "B") == [4, 0, 0]
    assert [entry.state for entry in line(made, "C").entries] == ["not run", "not run"] + [
        "done"
    ] * 2
    text = "\n".join(map(MARKDOWN, grids(made)))
    assert "selection: not on every data set** |" in text
    assert "—: not run." in text
    below = text.split("not on every data set")[1]
    assert below.splitlines()[1].startswith("| C ")


def test_the_four_rules_for_missing_cells_give_the_printed_table() -> None:
    made = example()
    names = ["A", "B", "C"]
    points = {
        name: [of.row.mean if of.row else None for of in line(made, name).entries] for name in names
    }
    there = {name: [p for p in of if p is not None] for name, of in points.items()}
    means = [sum(of) / len(of) for of in there.values()]
    assert means == pytest.approx([0.7375, 0.6625, 0.700])
    borda, worst = dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
    for column in zip(*points.values(), strict=True):
        filled = [-1.0 if p is None else p for p in column]
        for name, p, place in zip(names, column, places(filled), strict=True):
            borda[name] += 0 if p is None else int(len(names) - place)
            worst[name] += place / 4
    assert list(borda.values()) == [6, 2, 4]
    assert list(worst.values()) == [1.5, 2.5, 2.0]
    rate = {}
    for name in names:
        shares = [counts(made, name, other) for other in names if other != name]
        rate[name] = np.mean([better / (better + worse) for better, worse, _ in shares])
    assert rate == {"A": 0.5, "B": 0.0, "C": 1.0}


def test_a_failed_run_is_a_result_that_is_not_ranked_and_loses_each_comparison() -> None:
    records = [
        *on("d0", "a", 30),
        *on("d1", "a", 38, failed=[1]),
        *on("d0", "b", 20),
        *on("d1", "b", 10),
        *on("d0", "c", 25),
        *on("d1", "c", 12),
    ]
    made = across(records)
    assert [(of.name, of.complete) for of in made.lines] == [
        ("c", True),
        ("b", True),
        ("a", False),
    ]
    assert line(made, "a").entries[1].state == "failed"
    assert line(made, "a").mean_rank is None
    assert counts(made, "a", "b") == [1, 1, 0]
    assert line(made, "a").verdicts == {"better": 2, "worse": 2, "neither": 0}
    assert entry(line(made, "a").entries[1], made.columns[1], in_percent=True) == "✗ 1 of 3, 95.0"
    wholly = across([*records, *on("d2", "a", 1, failed=range(3)), *on("d2", "b", 9)])
    assert entry(line(wholly, "a").entries[2], wholly.columns[2], in_percent=True) == "✗ 3 of 3"
    both = across([*on("d0", "a", 1, failed=[0]), *on("d0", "b", 1, failed=[0]), *on("d1", "b", 9)])
    assert not any(sum(pair.counts().values()) for pair in both.pairs)  # two failures are no result


def test_each_state_has_its_sign_and_is_explained() -> None:
    records = [
        *on("d0", "a", 30),
        *on("d1", "a", 31, seeds=[0]),
        *on("d0", "b", 20),
        *on("d1", "b", 10),
        *on("d1", "b", 12, seeds=[0], revisions={"method": 2}),
        *on("d1", "c", 9),
    ]
    made = across(records)
    cells = {
        (of.name, c): entry(of.entries[c], made.columns[c], in_percent=True)
        for of in made.lines
        for c in range(2)
    }
    assert cells["a", 1] == "77.5, one seed"
    assert cells["b", 1] == "30.0, one seed"  # the newer revision, although it has fewer seeds
    assert cells["c", 0] == "—"
    text = MARKDOWN(grids(made)[0])
    assert "- One seed: not compared." in text
    old = across(
        [*on("d0", "b", 9), *on("d1", "b", 10), *on("d0", "b", 8, revisions={"method": 2})]
    )
    assert [of.state for of in old.lines[0].entries] == ["done", "done"]


def test_a_setting_that_was_not_run_on_a_data_set_could_run_there() -> None:
    records = [run for m in ("a", "b") for d in ("d0", "d1") for run in on(d, m, 20 + len(m))]
    hand = [
        replace(r, provenance=replace(r.provenance, chosen=["method.x"]))
        for r in [*on("d0", "c", 30, options={"x": 1}), *on("d0", "a", 30, options={"x": 1})]
    ]
    usual = [
        replace(r, provenance=replace(r.provenance, chosen=[]))
        for r in [*records, *on("d1", "c", 30)]
    ]
    made = across([*usual, *hand], tuned=Tuned())
    assert {e.state for of in made.lines for e in of.entries} == {"done", "not run"}


def test_a_line_cannot_run_in_a_section_that_the_rule_of_a_data_set_excludes() -> None:
    blind = [run for m in ("a", "b") for run in on("d0", m, 30 + len(m), select="last")]
    also = [run for m in ("a", "b") for run in on("d1", m, 20, select="last")]
    grouped = [run for m in ("a", "b") for run in on("d2", m, 25)]
    made = across([*blind, *also, *grouped])
    states = {(of.name, of.level): [e.state for e in of.entries] for of in made.lines}
    assert states["a", (0, 0, 0)] == ["done", "done", "cannot run"]
    assert states["a", (0, 4, 0)] == ["cannot run", "cannot run", "done"]
    text = "\n".join(map(MARKDOWN, grids(made)))
    assert "n/a: cannot run in this section" in text
    assert "Epochs of different rules: last (d0, d1); val\\_unbiased" in text.replace(
        "val_", "val\\_"
    )
    one_rule = across([*blind, *also, *grouped], select="last")
    assert {of.name: of.complete for of in one_rule.lines} == {"a": True, "b": True}


def test_lines_that_see_different_labels_are_never_compared() -> None:
    records = [
        run
        for k in range(3)
        for run in [
            *on(f"d{k}", "a", 10),
            *on(f"d{k}", "b", 20),
            *on(f"d{k}", "c", 30, seen=("groups", "none")),
        ]
    ]
    made = across(records)
    assert [{made.lines[p.one].name, made.lines[p.other].name} for p in made.pairs] == [{"a", "b"}]
    assert line(made, "c").mean_rank is None
    assert line(made, "c").verdicts == {"better": 0, "worse": 0, "neither": 0}


# --- ranks -------------------------------------------------------------------------------------


def test_ranks_follow_from_the_pairs_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    worse = {(2, 0), (3, 0), (3, 1), (3, 2)}
    assert rank_intervals(4, worse) == [(1, 2), (1, 3), (2, 3), (4, 4)]
    monkeypatch.setattr(Comparison, "worse", lambda *_: worse)
    records = [
        run
        for k in range(2)
        for method, right in zip("abcd", (40, 30, 20, 10), strict=True)
        for run in on(f"d{k}", method, right)
    ]
    made = across(records)
    ranks = [line(made, name).mean_rank for name in "abcd"]
    assert [(of.mean, of.low, of.high) for of in ranks if of] == [
        (1.0, 1.0, 2.0),
        (2.0, 1.0, 3.0),
        (3.0, 2.0, 3.0),
        (4.0, 4.0, 4.0),
    ]
    assert [of.rank for of in line(made, "b").entries] == [(1, 3), (1, 3)]


def test_mean_ranks_are_means_over_data_sets_and_equal_points_share_a_rank() -> None:
    rights = {"a": (30, 30, 10), "b": (20, 30, 20), "c": (10, 10, 30)}
    made = across(
        [run for m, of in rights.items() for k, r in enumerate(of) for run in on(f"d{k}", m, r)]
    )
    ranks = {of.name: of.mean_rank.mean for of in made.lines if of.mean_rank}
    assert ranks == pytest.approx({"a": 5.5 / 3, "b": 5.5 / 3, "c": 7 / 3})
    assert places([0.5, 0.7, 0.5, 0.1]) == [2.5, 1.0, 2.5, 4.0]


def test_no_rank_by_a_worst_group_that_chance_decides() -> None:
    rights = {"a": (30, 30, 10), "b": (20, 30, 20)}
    records = [
        run for m, of in rights.items() for k, r in enumerate(of) for run in on(f"d{k}", m, r)
    ]
    made = across(records, metric="worst_group")
    assert all(of.mean_rank is None for of in made.lines)
    assert not any(sum(pair.counts().values()) for pair in made.pairs)
    assert any(
        note.startswith("No ranks and no comparison by the worst group") for note in made.notes
    )


def test_friedmans_test_is_that_of_scipy_and_needs_twelve_different_data_sets() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, (14, 5))  # with ties
    found = friedman([places(list(row)) for row in x])
    assert found is not None
    expected = stats.friedmanchisquare(*x.T)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert friedman([[1.0, 2.0]] * 12) is None
    for lines, data_sets, distance in [(7, 3, 5.20), (7, 12, 2.60), (12, 20, 3.73)]:
        assert critical_distance(lines, data_sets) == pytest.approx(distance, abs=0.006)
    rights = {m: rng.integers(5, 35, 12).tolist() for m in "abc"}

    def over(number: int, name: str) -> Across:
        return across(
            [
                run
                for m, of in rights.items()
                for k in range(number)
                for run in on(name.format(k), m, of[k], dataset_options={"k": k}, seeds=(0, 1))
            ]
        )

    twelve = over(12, "d{}")
    (test,) = twelve.friedman.values()
    assert test.p == pytest.approx(stats.friedmanchisquare(*rights.values()).pvalue)
    assert "Friedman's test over 12 data sets" in MARKDOWN(grids(twelve)[0])
    for few in (over(11, "d{}"), over(12, "d")):  # eleven, and twelve variants of one
        assert not few.friedman
        assert "No Friedman test over data sets" in MARKDOWN(grids(few)[0])


# --- differences -------------------------------------------------------------------------------


def predicted(rng: np.random.Generator, dataset: str, method: str, p: float) -> tuple[Any, Any]:
    """Three runs with predictions: records, and id -> which samples are right."""
    records, correct = [], {}
    for seed in range(3):
        right = rng.random(40) < p
        hits = tuple(int(right[g == GROUP].sum()) for g in range(4))
        spec = replace(SPEC, dataset=Choice(dataset), method=Choice(method), seed=seed)
        record = make_record(spec, hits)
        records.append(replace(record, task=replace(record.task, fingerprint=dataset)))
        correct[record.id] = right
    return records, correct


def test_points_above_the_baseline_have_the_interval_over_seeds_and_samples() -> None:
    rng = np.random.default_rng(0)
    records, right = [], {}
    for dataset in ("d0", "d1"):
        for method, p in (("erm", 0.5), ("rest", 0.8), ("lff", 0.6)):
            if (dataset, method) != ("d1", "lff"):
                made, of = predicted(rng, dataset, method, p)
                records += made
                right |= of
    stored = {name: Correct(GROUP, np.packbits(of).tobytes()) for name, of in right.items()}
    made = across(records, baseline="erm", correct={"val_unbiased": stored})
    groups = Groups.of([10] * 4, [0.25] * 4)
    for c, dataset in enumerate(("d0", "d1")):
        of = {
            method: np.stack(
                [
                    right[r.id]
                    for r in records
                    if (r.spec.dataset.name, r.spec.method.name) == (dataset, method)
                ],
                axis=1,
            ).astype(int)
            for method in ("erm", "rest")
        }
        expected = parts(of["rest"] - of["erm"], groups)
        found = line(made, "rest").entries[c].difference
        assert found.mean == pytest.approx(expected.mean)
        assert (found.low, found.high) == pytest.approx(expected.interval())
        pair = next(
            p
            for p in made.pairs
            if {made.lines[p.one].name, made.lines[p.other].name} == {"rest", "erm"}
        )
        sign = 1 if made.lines[pair.one].name == "rest" else -1
        assert sign * pair.differences[c].mean == pytest.approx(expected.mean)
        assert pair.differences[c].p == pytest.approx(found.p)
    by_board = boards(records, baseline="erm", correct={"val_unbiased": stored})
    assert {row.name: row.difference for row in by_board[0].rows}["lff"] == line(
        made, "lff"
    ).entries[0].difference
    with pytest.raises(UnknownNameError, match="Did you mean 'erm'"):
        across(records, baseline="emr")


def test_where_there_is_no_baseline_the_accuracy_is_shown_with_its_unit() -> None:
    records = [*on("d0", "erm", 20), *on("d0", "a", 30), *on("d1", "a", 20), *on("d1", "b", 20)]
    made = across(records, baseline="erm")
    (points, *_) = grids(made)
    of = {row[0].text: [cell.text for cell in row[3:]] for row in points.rows}
    assert of["erm"] == ["50.0 %", "—"]
    assert of["a"] == ["+25.0 (+25.0 to +25.0)", "50.0 %"]


def test_a_difference_within_a_point_is_said_to_be_so() -> None:
    of = [Difference(0.002, -0.004, 0.008), Difference(0.002, -0.004, 0.012), Difference()]
    assert [cells.points(one) for one in of] == [
        "+0.2 (-0.4 to +0.8) ≈",
        "+0.2 (-0.4 to +1.2)",
        "—",
    ]
    assert cells.points(Difference(-0.0001, -0.0002, 0.0)) == "0.0 (0.0 to 0.0) ≈"
    assert cells.points(Difference(0.0, 0.0, 0.0, 1.0)) == "0.0"
    records = [run for k in range(2) for m in "ab" for run in on(f"d{k}", m, 20)]
    assert "≈: within ±1 point" not in MARKDOWN(grids(across(records, baseline="b"))[0])


# --- matching ----------------------------------------------------------------------------------


def names(records: Sequence[Record]) -> dict[str, list[bool]]:
    return {
        of.name: [entry.row is not None for entry in of.entries] for of in across(records).lines
    }


def test_a_method_with_one_setting_is_one_line_whatever_its_options_are() -> None:
    records = [
        *on("d0", "rest", 20, options={"weight": 30, "density": 0.05}, training={"lr": 0.1}),
        *on("d1", "rest", 20, options={"weight": 80, "density": 0.05}, training={"lr": 0.01}),
    ]
    assert names(records) == {"rest": [True, True]}
    notes = across(records).notes
    assert "rest: weight differs between data sets: 30 (d0); 80 (d1)." in notes
    assert not any("density" in note for note in notes)


def test_several_settings_are_matched_by_the_options_in_which_they_differ() -> None:
    dense, sparse = {"density": 0.05}, {"density": 0.01}
    records = [
        *on("d0", "rest", 20, options={"weight": 30, **dense}),
        *on("d0", "rest", 21, options={"weight": 30, **sparse}),
        *on("d1", "rest", 22, options={"weight": 80, **dense}),
    ]
    assert names(records) == {
        "rest (density=0.01)": [True, False],
        "rest (density=0.05)": [True, True],
    }
    trained = [
        *on("d0", "erm", 20, training={"lr": 0.1}),
        *on("d0", "erm", 20, training={"lr": 0.5}),
        *on("d1", "erm", 20, training={"lr": 0.5}),
    ]
    assert names(trained) == {"erm (train.lr=0.1)": [True, False], "erm (train.lr=0.5)": [True] * 2}
    assert any("several training settings" in note for note in across(trained).notes)
    made = across([*trained, *on("d1", "lff", 10)], baseline="erm")
    difference = line(made, "lff").entries[1].difference
    assert difference.mean == pytest.approx(-0.25)  # d1 has one erm, so it is the baseline


def test_a_line_is_named_by_a_few_options_that_tell_it_from_the_others() -> None:
    short, long = {"epochs": 8, "lr": 0.1}, {"epochs": 100, "lr": 0.5}
    records = [
        *on("d0", "erm", 20, training=short),
        *on("d0", "erm", 21, training=long),
        *on("d1", "erm", 22, training=long),
    ]
    assert names(records) == {
        "erm (train.epochs=8)": [True, False],
        "erm (train.epochs=100)": [True, True],
    }
    other = on("d1", "erm", 22, training={"epochs": 100, "lr": 0.1})  # half of each
    assert names([*records[:6], *other]) == {
        "erm (train.epochs=8, train.lr=0.1)": [True, False],
        "erm (train.epochs=100, train.lr=0.5)": [True, False],
        "erm (train.epochs=100, train.lr=0.1)": [False, True],
    }


def test_the_same_name_of_another_distribution_is_another_method() -> None:
    records = [*on("d0", "x", 20, made_by="acme 1.0"), *on("d1", "x", 20, made_by="other 1.0")]
    assert names(records) == {"x (of=acme)": [True, False], "x (of=other)": [False, True]}
    newer = [*on("d0", "x", 20, made_by="acme 1.0"), *on("d1", "x", 20, made_by="acme 1.1")]
    assert names(newer) == {"x": [True, True]}


# --- everything around it ----------------------------------------------------------------------


def test_the_order_of_records_changes_nothing() -> None:
    records = [
        run
        for k in range(3)
        for m in "abcd"
        if (k, m) != (1, "d")
        for run in on(
            f"d{k}", m, 10 + 3 * k + ord(m) % 5, options={"w": k}, failed=[k] * (m == "c")
        )
    ]
    expected = as_json(across(records, baseline="a"))
    for seed in range(3):
        random.Random(seed).shuffle(records)
        assert as_json(across(records, baseline="a")) == expected


def test_one_data_set_is_an_error_that_names_it(debiasbench: Cli) -> None:
    with pytest.raises(RecordError, match=r"one only: d0 .*mlp.* Add records of another"):
        across(on("d0", "a", 20))
    put(Path("records"), on("d0", "a", 20))
    result = debiasbench("leaderboard", "records", "--across")
    assert result.exit_code == 9
    assert result.stderr.startswith("Error: --across compares data sets")


def test_variants_of_one_data_set_are_named_by_what_differs_and_said_not_to_be_independent() -> (
    None
):
    records = [
        run
        for k in (0.01, 0.05)
        for run in on("toy", "a", 20, dataset_options={"ratio": k, "split_seed": 0})
    ]
    made = across(records)
    assert [column.label for column in made.columns] == ["ratio=0.01", "ratio=0.05"]
    assert made.notes[0].startswith("All of the 2 columns are variants of toy")
    assert grids(made)[0].heading == "2 variants of toy: unbiased accuracy"
    more = across([*records, *on("d", "a", 20, dataset_options={"ratio": 0.05, "split_seed": 0})])
    assert [column.label for column in more.columns] == ["d", "toy ratio=0.01", "toy ratio=0.05"]
    assert more.notes[0].startswith("2 of the 3 columns are variants of toy")


HOSTILE = ["a|<i>_%", "=HYPERLINK(1)", "**b** [x](y)", "\x1b[31mred\x07", "m" * 300]


def test_names_of_strangers_stay_text_in_every_format() -> None:
    records = [
        run
        for k in range(2)
        for i, name in enumerate(HOSTILE)
        for run in on(f"d<b>{k}", name, 10 + i, options={"x`|": f"<script>{k}"})
    ]
    made = across(records, baseline=HOSTILE[0])
    html = "".join(map(HTML, grids(made)))
    assert "<i>" not in html
    assert "<script" not in html
    assert "<b>" not in html
    markdown = "".join(map(MARKDOWN, grids(made)))
    assert "<script" not in markdown.replace("\\<", "")
    assert "\x1b" not in markdown
    assert "\x1b" not in "".join(terminal(grid, 100) for grid in grids(made))
    assert r"a\textbar{}\textless{}i\textgreater{}\_\%" in "".join(map(latex, grids(made)))
    rows = list(csv.DictReader(io.StringIO(as_csv(made))))
    assert "'=HYPERLINK(1)" in {row["method"] for row in rows}
    assert not any((row["other"] or "").startswith("=") for row in rows)
    assert {of["method"] for of in json.loads(as_json(made))["lines"]} == set(HOSTILE)


def test_latex_has_no_sign_that_its_fonts_lack() -> None:
    records = [*on("d0", "a", 30), *on("d1", "a", 38, failed=[1]), *on("d0", "b", 20)]
    text = "".join(map(latex, grids(across(records, baseline="b"))))
    assert text.isascii()


def put(folder: Path, records: list[Record]) -> None:
    folder.mkdir()
    for record in records:
        (folder / f"{record.spec.stem}.json").write_text(to_json(record))


def test_a_page_and_the_command_line_make_the_same_tables(debiasbench: Cli) -> None:
    put(Path("records"), [*on("d0", "a", 20), *on("d1", "a", 30), *on("d0", "b", 10)])
    printed = debiasbench("leaderboard", "records", "--across", "--baseline", "b").stdout
    page = Path("page.md")
    page.write_text(
        "<!-- debiasbench leaderboard records --across --baseline b -->\n<!-- /debiasbench -->\n"
    )
    assert regenerated(page)[1].splitlines()[2:-2] == printed.splitlines()
    assert "### 2 data sets: unbiased accuracy" in printed
    out = debiasbench("leaderboard", "records", "--across", "--format", "csv", "--out", "t.csv")
    assert out.exit_code == 0
    rows = list(csv.DictReader(io.StringIO(Path("t.csv").read_text())))
    assert [(row["kind"], row["method"], row["data_set"], row["state"]) for row in rows] == [
        ("entry", "a", "d0", "done"),
        ("entry", "a", "d1", "done"),
        ("entry", "b", "d0", "done"),
        ("entry", "b", "d1", "not run"),
        ("pair", "a", "d0", ""),
        ("pair", "a", "d1", ""),
    ]
    assert [row["verdict"] for row in rows[4:]] == ["better", ""]


@pytest.mark.parametrize(
    "option",
    [{"pivot": "dataset.ratio"}, {"panel": "groups"}, {"columns": "density"}, {"sort": "density"}],
)
def test_options_without_meaning_beside_it_are_refused(option: dict[str, str]) -> None:
    (name,) = option
    with pytest.raises(OptionError, match=f"--across cannot be combined with --{name}"):
        table([Path("nowhere")], "markdown", across=True, **option)  # type: ignore[arg-type]


def test_text_is_exactly_this() -> None:
    records = [*on("d0", "erm", 20), *on("d1", "erm", 24), *on("d0", "a", 30), *on("d1", "a", 24)]
    records += on("d1", "b", 22)
    text = "\n".join(map(MARKDOWN, grids(across(records, baseline="erm"))))
    assert text == EXPECTED


EXPECTED = """\
### 2 data sets: unbiased accuracy

| method   |       mean rank |   better–worse–neither |                         d0 |                  d1 |
|:---------|----------------:|-----------------------:|---------------------------:|--------------------:|
| **no bias labels in training, group labels of validation for selection** |||||
| a        | 1.2 (1.0 – 1.5) |                  2–0–1 | **+25.0 (+25.0 to +25.0)** |             **0.0** |
| erm      | 1.8 (1.5 – 2.0) |                  1–1–1 |                     50.0 % |          **60.0 %** |
| **no bias labels in training, group labels of validation for selection: not on every data set** |||||
| b        |                 |                  0–2–0 |                          — | -5.0 (-5.0 to -5.0) |

- Accuracy on the test split, at the epoch selected by val_unbiased: points above erm, the mean difference over common seeds (95 % interval). Numbers with % are accuracies: of the baseline, and where nothing can be subtracted. 95 % intervals and tests: over seeds alone, because predictions are missing, so that intervals are too narrow.
- Columns: d0 · mlp hidden=\\[4\\]; d1 · mlp hidden=\\[4\\].
- Mean rank: over data sets, among the lines of the section that have all of them; in brackets the means of the lowest and of the highest rank that the tests leave open.
- Better–worse–neither: significantly better, significantly worse, and neither, counted over all other lines of the section and all common data sets; paired tests with Holm's correction (5 %) over all pairs of the section on each data set.
- No Friedman test over data sets: with fewer than 12 different ones it can hardly decide anything.
- Bold: the best of its section, and those that a paired test (Holm, 5 %) cannot distinguish from it.
- The smallest group of the validation split has 10 samples, so val_unbiased selects epochs by chance in part.
- Epochs were selected by older rules, of revision 1 instead of 2: val_unbiased kept the earliest of epochs with equal accuracy.
- —: not run.

### 2 data sets: unbiased accuracy, pairs: no bias labels in training, group labels of validation for selection

| method   |     a |   erm |
|:---------|------:|------:|
| **no bias labels in training, group labels of validation for selection** |||
| a        |       | 1–0–1 |
| erm      | 0–1–1 |       |

- On how many common data sets the row is significantly better than the column, significantly worse, and neither: paired tests with Holm's correction (5 %) over all pairs of the section on each data set.
- Not here, because on one data set only: b.
"""

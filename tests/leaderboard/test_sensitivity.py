"""Who is best in each view of the evaluation, and how much of a gain is due to selection."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from debiasbench.common.errors import OptionError, RecordError, UnknownNameError
from debiasbench.leaderboard.markup import MARKDOWN
from debiasbench.leaderboard.sensitivity import Sensitivity, sensitivities
from debiasbench.leaderboard.sensitivity_text import as_csv, as_json, grids
from debiasbench.leaderboard.table import table
from debiasbench.records.metrics import METRICS
from debiasbench.records.record import Record, to_json
from debiasbench.records.selection import RULES
from tests.leaderboard.test_leaderboard import ERM, LFF
from tests.leaderboard.test_protocol import Runs, example, share
from tests.records.test_record import SPEC


def made(runs: Runs, **options: str) -> Sensitivity:
    (found,) = sensitivities(runs.records, correct=runs.correct, **options)  # type: ignore[arg-type]
    return found


def test_there_is_a_view_for_each_rule_and_metric_and_the_own_one_is_first() -> None:
    found = made(example())
    assert found.views[0].name == "val_unbiased"
    assert [v.choice for v in found.views].count("own") == 1
    names = {v.name for v in found.views}
    assert names == {*RULES, *METRICS} - {"unbiased"}


def test_points_ranks_and_marks_are_those_of_the_board_of_each_view() -> None:
    runs = example()
    found = made(runs)
    line = next(line for line in found.lines if line.name == "a")
    for name, rule, metric in (
        ("val_unbiased", "val_unbiased", "unbiased"),
        ("last", "last", "unbiased"),
        ("conflict", "val_unbiased", "conflict"),
    ):
        values = [
            record.outcomes[rule].test.metrics[metric]
            for record in runs.records
            if record.spec.method.name == "a"
        ]
        assert line.rows[name].mean == pytest.approx(np.mean(values))
    assert (line.ranks["val_unbiased"], line.ranks["last"]) == (1, 3)
    assert "val_unbiased" in line.best
    assert "last" not in line.best


def test_selection_rules_agree_as_much_as_the_comparison_of_rules_says() -> None:
    runs = example()
    of = {a.rule: a for a in made(runs).agreements}
    assert {rule: of[rule] for rule in RULES} == {a.rule: a for a in runs.made().agreements}
    assert of["last"].tau < of["val_unbiased"].tau == 1
    assert of["last"].best == ["c"]
    assert of["conflict"].best == ["a", "b"]


def with_validation(runs: Runs, value: str) -> Runs:
    """Return the same runs as of a data set with another validation split."""
    found = Runs()
    for record in runs.records:
        spec = record.spec
        data = replace(spec.dataset, options={**spec.dataset.options, "val": value})
        changed: Record = replace(
            record,
            spec=replace(spec, dataset=data),
            id=replace(spec, dataset=data).id,
            task=replace(record.task, fingerprint="beef"),
        )
        found.records.append(changed)
        for rule, of in runs.right.items():
            found.right.setdefault(rule, {})[changed.id] = of[record.id]
    return found


def test_runs_with_another_validation_split_are_a_view_of_the_same_methods() -> None:
    runs, turned = example(), Runs()
    for method, right in zip("abcd", (8, 16, 24, 32), strict=True):
        for seed in range(3):
            turned.add(method, seed, {"last": share(right + seed)[0]})
    biased = with_validation(turned, "biased")
    runs.records += biased.records
    for rule, of in biased.right.items():
        runs.right[rule] |= of
    found = made(runs)
    (view,) = [v for v in found.views if v.choice == "validation"]
    assert view.name == "val=biased"
    ranks = {line.name: line.ranks.get(view.name) for line in found.lines}
    assert ranks == {"a": 4, "b": 3, "c": 2, "d": 1, "sees": None}
    (of,) = [a for a in found.agreements if a.rule == view.name]
    assert of.best[0] == "d"


def test_a_view_of_some_lines_leaves_the_ranks_of_all_lines_in_the_own_view_alone() -> None:
    runs, turned = Runs(), Runs()
    for method, right in zip("abc", (38, 20, 5), strict=True):
        for seed in range(3):
            runs.add(method, seed, {"last": share(right)[0]})
            if method != "a":
                turned.add(method, seed, {"last": share(40 - right)[0]})
    biased = with_validation(turned, "biased")
    runs.records += biased.records
    for rule, of in biased.right.items():
        runs.right[rule] |= of
    found = made(runs)
    lines = {line.name: line for line in found.lines}
    own = found.views[0].name
    assert [lines[name].ranks[own] for name in "abc"] == [1, 2, 3]
    assert [own in lines[name].best for name in "abc"] == [True, False, False]
    assert [lines[name].ranks.get("val=biased") for name in "abc"] == [None, 2, 1]


def test_precisions_are_lines_of_their_own_unless_each_split_has_one() -> None:
    runs = Runs()
    for precision, right in (("fp32", 30), ("bf16", 20)):
        for seed in range(2):
            training = {**SPEC.training, "precision": precision}
            runs.add("a", seed, {"last": share(right)[0]}, spec={"training": training})
            runs.add("b", seed, {"last": share(10)[0]}, spec={"training": training})
    found = made(runs)
    for view in found.views:
        means = {line.name: line.rows[view.name].mean for line in found.lines}
        if view.choice == "rule":
            assert means["a (train.precision=bf16)"] == 20 / 40
            assert means["a (train.precision=fp32)"] == 30 / 40
    one, other = Runs(), Runs()
    for method in "ab":
        for seed in range(2):
            one.add(method, seed, {"last": share(30)[0]})
            training = {**SPEC.training, "precision": "bf16"}
            other.add(method, seed, {"last": share(20)[0]}, spec={"training": training})
    biased = with_validation(other, "biased")
    one.records += biased.records
    for rule, of in biased.right.items():
        one.right[rule] |= of
    assert [line.rows["val=biased"].mean for line in made(one).lines] == [20 / 40, 20 / 40]


@pytest.mark.parametrize("select", ["val_unbiased", "last"])
def test_records_of_newer_rules_have_all_views_too(select: str) -> None:
    runs = Runs()
    for method, (own, last) in {"base": (20, 20), "selected": (30, 25)}.items():
        for seed in range(3):
            under = {"val_unbiased": share(own)[0], "last": share(last)[0]}
            runs.add(method, seed, under, spec={"revisions": {"rules": 2}})
    found = made(runs, select=select, baseline="base")
    assert {*RULES} <= {view.name for view in found.views}
    assert all({*RULES} <= line.rows.keys() for line in found.lines)
    assert {line.level for line in found.lines} == {(0, 0, 0)}
    (gain,) = found.gains
    assert gain.last.mean > 0.1


def test_a_gain_is_divided_into_training_and_selection() -> None:
    runs = Runs()
    points = {"base": (20, 20), "selected": (30, 20), "trained": (30, 30)}
    for method, (own, last) in points.items():
        for seed in range(3):
            runs.add(method, seed, {"val_unbiased": share(own)[0], "last": share(last)[0]})
    found = made(runs, baseline="base")
    gains = {gain.name: gain for gain in found.gains}
    assert gains.keys() == {"selected", "trained"}
    value = next(line for line in found.lines if line.name == "selected").rows
    own, last = value["val_unbiased"].mean, value["last"].mean
    assert gains["selected"].selected.mean > 0.1
    assert gains["selected"].last.mean == pytest.approx(0)
    assert gains["selected"].of_selection == pytest.approx(own - last)
    assert gains["trained"].of_selection == pytest.approx(0)


def test_a_baseline_that_no_board_has_is_named() -> None:
    with pytest.raises(UnknownNameError, match="baseline 'lff'"):
        made(example(), baseline="lff")


def test_lines_that_are_alone_in_their_sections_have_points_and_gains() -> None:
    runs = Runs()
    for method, seen in (("a", "none"), ("b", "groups")):
        for seed in range(2):
            under = {"val_unbiased": share(30 + seed)[0], "last": share(20 + seed)[0]}
            runs.add(method, seed, under, seen=(seen, "none"))
    found = made(runs, baseline="a")
    assert found.agreements == []
    text = "\n".join(map(MARKDOWN, grids(found)))
    assert "accuracy in each view" in text
    assert "gain over a" in text
    assert "who is best" not in text


def test_one_method_alone_has_no_sensitivity() -> None:
    runs = Runs()
    runs.add("a", 0, {"last": share(20)[0]})
    with pytest.raises(RecordError, match="no data set here has two methods"):
        made(runs)


def test_all_layouts_hold_every_line_and_view() -> None:
    found = made(example(), baseline="b")
    text = "\n".join(map(MARKDOWN, grids(found)))
    for words in ("who is best in which view", "accuracy in each view", "gain over b"):
        assert words in text
    rows = list(csv.DictReader(io.StringIO(as_csv([found]))))
    assert len(rows) == len(found.lines) * len(found.views)
    (data,) = json.loads(as_json([found]))
    assert [view["name"] for view in data["views"]] == [view.name for view in found.views]
    assert len(data["gains"]) == 4


@pytest.mark.parametrize("other", ["across", "protocol", "pivot"])
def test_it_is_not_combined_with_other_tables(other: str) -> None:
    value: object = "dataset.ratio" if other == "pivot" else True
    with pytest.raises(OptionError, match="cannot be combined"):
        table([Path()], "text", sensitivity=True, **{other: value})  # type: ignore[arg-type]


def test_a_table_may_have_the_records_of_some_methods_only(tmp_path: Path) -> None:
    for record in ERM + LFF:
        (tmp_path / f"{record.id}.json").write_text(to_json(record))
    text, _ = table([tmp_path], "csv", methods=["erm"])
    assert {row["method"] for row in csv.DictReader(io.StringIO(text))} == {"erm"}
    both, _ = table([tmp_path], "csv", methods=["erm", "lff"])
    assert both == table([tmp_path], "csv")[0]
    with pytest.raises(UnknownNameError, match="method with records 'jtt'"):
        table([tmp_path], "csv", methods=["jtt"])

"""A published value is judged by the standard error of its difference to ours."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.leaderboard.groups import NORMAL
from debiasbench.leaderboard.published import Published, Source, Value
from debiasbench.leaderboard.reproduction import Line, reproduction
from debiasbench.leaderboard.reproduction_text import as_csv, as_json, grids
from debiasbench.leaderboard.row import Interval, Row
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.specs.spec import Spec
from tests.cli.calls import records

Cli = Callable[..., Result]

PAPER = Source("paper", "A paper", "Table 1", seeds=4)


def row(*values: float, samples: float = math.nan) -> Row:
    return Row(
        method="erm",
        setting="",
        made_by="",
        train="none",
        val="none",
        values=dict(enumerate(values)),
        side={},
        costs={},
        failed={},
        missing={},
        options={},
        training={},
        records=["r"],
        interval=Interval(samples=samples),
    )


def line(published: float, deviation: float, own: Row | None, source: Source = PAPER) -> Line:
    return Line(Value(source, {"method": "erm"}, published, deviation), runs=3, row=own)


def test_the_difference_is_divided_by_the_standard_error_of_both_sides() -> None:
    own = row(0.60, 0.62, 0.64)  # deviation .02, error .02 / sqrt(3)
    found = line(0.5, 0.04, own)  # error .04 / sqrt(4)
    assert found.difference == pytest.approx(0.12)
    assert found.deviations == pytest.approx(0.12 / math.sqrt(0.02**2 / 3 + 0.02**2))
    assert found.verdict == "above"
    with_samples = line(0.5, 0.04, replace(own, interval=Interval(samples=NORMAL * 0.1)))
    assert with_samples.deviations == pytest.approx(
        0.12 / math.sqrt(0.02**2 / 3 + 0.02**2 + 0.1**2)
    )
    assert with_samples.verdict == "within 2"


def test_a_spread_that_is_not_printed_is_taken_to_be_ours() -> None:
    found = line(0.5, math.nan, row(0.60, 0.62, 0.64))
    assert found.assumed
    assert found.deviations == pytest.approx(0.12 / math.sqrt(0.02**2 / 3 + 0.02**2 / 4))
    unknown = line(0.5, math.nan, row(0.60, 0.62, 0.64), replace(PAPER, seeds=None))
    assert unknown.deviations == pytest.approx(0.12 / math.sqrt(2 * 0.02**2 / 3))


@pytest.mark.parametrize(
    ("own", "source", "verdict"),
    [
        (None, PAPER, "not run"),
        (row(0.5), PAPER, "one seed"),
        (row(0.5, 0.52), PAPER, "within 2"),
        (row(0.2, 0.21), PAPER, "below"),
        (row(0.8, 0.81), PAPER, "above"),
        (row(0.8, 0.8), PAPER, "above"),
        (row(0.5, 0.5), PAPER, "within 2"),
        (row(0.5, 0.52), replace(PAPER, differs="other images"), "protocol differs"),
    ],
)
def test_a_verdict_needs_two_seeds_and_the_same_protocol(
    own: Row | None, source: Source, verdict: str
) -> None:
    assert line(0.5, 0.01, own, source).verdict == verdict
    if own is not None and own.deviation == 0:  # no spread at all on either side
        assert line(0.5, math.nan, own, source).verdict == verdict
    assert replace(line(0.5, 0.01, None), failed=3).verdict == "failed"


def specs() -> list[Spec]:
    plugins = Plugins(installed=False)
    return [make_spec(plugins, method="erm", dataset="digits", seed=seed) for seed in range(2)]


def test_a_suite_without_a_record_has_all_values_and_says_that_none_was_run() -> None:
    published = Published(
        "s", "unbiased", "last", (Value(PAPER, {"method": "erm"}, 0.5),), {"paper": PAPER}
    )
    found = reproduction(published, specs(), None)
    assert [(one.runs, one.done, one.verdict) for one in found.lines] == [(2, 0, "not run")]
    (table,) = grids(found)
    assert "1 values: 1 not run." in table.remarks
    assert json.loads(as_json([found]))[0]["values"][0]["ours"] is None
    assert as_csv([found]).count("\n") == 2


SUITE = """
name = "s"
description = "d"
source = "s"
[base]
dataset = "toy"
model = "mlp"
"train.epochs" = 1
[grid]
seed = [0, 1]
method = ["erm", "upweight"]
"dataset.ratio" = [0.1, 0.2]
"""
VALUES = """
suite = "s"
metric = "unbiased"
select = "last"
[sources.paper]
citation = "A <paper>"
place = "Table 1"
[[values]]
source = "paper"
method = "erm"
"dataset.ratio" = [0.1, 0.2]
accuracy = [0, 60]
deviation = [0.1, 50]
"""
WORDS = ("reproduce", "s.toml", "--values", "v.toml", "--device", "cpu", "--quiet")


@pytest.fixture
def files(debiasbench: Cli) -> None:
    Path("s.toml").write_text(SUITE)
    Path("v.toml").write_text(VALUES)


@pytest.mark.usefixtures("files")
def test_the_command_runs_what_is_missing_and_judges_each_value(debiasbench: Cli) -> None:
    first = debiasbench(*WORDS, "--format", "json")
    assert first.exit_code == 0, first.output
    assert len(records()) == 8
    (found,) = json.loads(first.stdout)
    assert [v["verdict"] for v in found["values"]] == ["above", "within 2"]
    assert [(v["seeds"], v["planned"]) for v in found["values"]] == [(2, 2), (2, 2)]
    assert all(len(v["records"]) == 2 for v in found["values"])

    again = debiasbench(*WORDS, "--format", "json")
    assert "8 runs: 0 trained, 8 already done" in again.stderr
    assert again.stdout == first.stdout
    # killed in between, and continued: the same table
    for path in records()[:3]:
        path.unlink()
    assert debiasbench(*WORDS, "--no-run", "--format", "json").stdout != first.stdout
    assert debiasbench(*WORDS, "--format", "json").stdout == first.stdout
    page = debiasbench(*WORDS, "--format", "html-table").stdout
    assert "A &lt;paper&gt;" in page


@pytest.mark.usefixtures("files")
def test_withdrawn_records_have_no_verdict(debiasbench: Cli) -> None:
    debiasbench(*WORDS)
    ids = [json.loads(path.read_text())["id"] for path in records()]
    gone = "".join(f'[{name}]\nreason = "wrong"\ndate = 2026-11-27\n' for name in ids)
    Path("results/withdrawn.toml").write_text(gone)
    (found,) = json.loads(debiasbench(*WORDS, "--no-run", "--format", "json").stdout)
    assert [v["verdict"] for v in found["values"]] == ["not run", "not run"]
    told = debiasbench(*WORDS, "--no-run").stdout
    assert "8 records are withdrawn and not judged." in told


@pytest.mark.usefixtures("files")
def test_without_running_the_records_at_hand_are_judged(debiasbench: Cli) -> None:
    told = debiasbench(*WORDS, "--no-run", "--format", "json")
    assert told.exit_code == 0, told.output
    (found,) = json.loads(told.stdout)
    assert [v["verdict"] for v in found["values"]] == ["not run", "not run"]
    assert not records()
    assert "8 runs will take about" in debiasbench(*WORDS, "--plan").stdout


@pytest.mark.usefixtures("files")
def test_values_of_another_suite_are_refused(debiasbench: Cli) -> None:
    Path("s.toml").write_text(SUITE.replace('"s"', '"t"', 1))
    told = debiasbench(*WORDS)
    assert told.exit_code == 2
    assert "v.toml has values of the suite s, not of t" in told.stderr

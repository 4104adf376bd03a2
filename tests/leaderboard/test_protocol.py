"""The same runs under each selection rule: points, orders, gaps, and what labels are worth."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray
from scipy import stats

from debiasbench import Supervision
from debiasbench.common.errors import OptionError, RecordError, UnknownNameError
from debiasbench.leaderboard.crossed import Groups, parts
from debiasbench.leaderboard.latex import latex
from debiasbench.leaderboard.markup import HTML, MARKDOWN
from debiasbench.leaderboard.orders import kendall
from debiasbench.leaderboard.page import regenerated
from debiasbench.leaderboard.protocol import Line, Protocol, protocols
from debiasbench.leaderboard.protocol_text import as_csv, as_json, grids
from debiasbench.leaderboard.statistics import interval
from debiasbench.leaderboard.table import table
from debiasbench.records.correct import Correct
from debiasbench.records.metrics import accuracies
from debiasbench.records.record import Record, SplitResult, to_json
from debiasbench.records.selection import RULES
from debiasbench.specs.spec import Choice
from tests.records.test_record import SPEC, make_record

Cli = Callable[..., Result]
GROUP = np.repeat(np.arange(4, dtype=np.uint16), 10)  # of the 40 test samples
EQUAL = Groups.of([10] * 4, [0.25] * 4)  # for the unbiased accuracy


@dataclass
class Runs:
    """Records whose results depend on the rule, and which samples are right under each rule."""

    records: list[Record] = field(default_factory=list)
    right: dict[str, dict[str, NDArray[np.bool_]]] = field(default_factory=dict)

    def add(
        self,
        method: str,
        seed: int,
        under: Mapping[str, NDArray[np.bool_]],
        *,
        seen: tuple[str, str] = ("none", "none"),
        spec: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        """Add a run; rules that `under` does not name have the result of `last`.

        `spec`: what its spec has instead of what `SPEC` has.
        """
        made = replace(SPEC, method=Choice(method), seed=seed, **(spec or {}))
        record = make_record(made, supervision=Supervision(*seen), **changes)  # type: ignore[arg-type]
        outcomes = {}
        for rule, outcome in record.outcomes.items():
            right = under.get(rule, under["last"])
            hits = [int(right[g == GROUP].sum()) for g in range(4)]
            counts = replace(record.task.splits["test"], hits=np.array(hits).reshape(2, 2))
            result = SplitResult(hits, accuracies(counts))
            outcomes[rule] = replace(outcome, test=result)
            self.right.setdefault(rule, {})[record.id] = right
        self.records.append(replace(record, outcomes=outcomes))

    @property
    def correct(self) -> dict[str, dict[str, Correct]]:
        return {
            rule: {name: Correct(GROUP, np.packbits(x).tobytes()) for name, x in of.items()}
            for rule, of in self.right.items()
        }

    def made(self, **options: Any) -> Protocol:
        (found,) = protocols(self.records, correct=self.correct, **options)
        return found

    def table(self, method: str, rule: str) -> NDArray[Any]:
        """(40, S) which samples the runs of a method have right."""
        names = [r.id for r in self.records if r.spec.method.name == method]
        return np.stack([self.right[rule][name] for name in names], axis=1).astype(np.int8)


def share(*parts_of_40: int) -> list[NDArray[np.bool_]]:
    """Return samples of which so many are right: one array for each seed."""
    return [np.random.default_rng(n).permutation(np.arange(40) < n) for n in parts_of_40]


def example(*, seeds: int = 3) -> Runs:
    """Four methods whose order by `last` differs from that by the own rule, val_unbiased."""
    rng, runs = np.random.default_rng(0), Runs()
    points = {"a": (0.9, 0.3), "b": (0.7, 0.6), "c": (0.5, 0.9), "d": (0.2, 0.2)}
    for method, (own, last) in points.items():
        hard = rng.random(40)
        for seed in range(seeds):
            under = {"val_unbiased": hard + rng.normal(0, 0.1, 40) < own}
            under["last"] = hard + rng.normal(0, 0.1, 40) < last
            runs.add(method, seed, under)
    for seed in range(seeds):
        under = {rule: rng.random(40) < 0.95 for rule in RULES}
        runs.add("sees", seed, under, seen=("groups", "none"))
    return runs


def line(made: Protocol, name: str) -> Line:
    (found,) = [line for line in made.lines if line.name == name]
    return found


def test_points_and_ranks_are_those_under_each_rule() -> None:
    runs = example()
    made = runs.made()
    assert made.own.rule == "val_unbiased"
    assert made.rules == list(RULES)
    for name in "abcd":
        of = line(made, name)
        assert of.level == (0, 0, 0)  # what the method reads, although its rule reads group labels
        for rule in made.rules:
            assert of.rows[rule].mean == pytest.approx(runs.table(name, rule).mean())
    for rule in ("last", "val_unbiased"):
        means = [runs.table(name, rule).mean() for name in "abcd"]
        ranks = stats.rankdata([-mean for mean in means])
        assert [line(made, name).ranks[rule] for name in "abcd"] == ranks.tolist()
    assert line(made, "sees").ranks == {}  # alone in its section


def test_with_records_of_two_revisions_of_the_rules_a_line_shows_the_newer_ones() -> None:
    runs = Runs()
    for revisions, points, seeds in ((None, 10, 3), ({"rules": 2}, 30, 2)):
        for method in "ab":
            for seed in range(seeds):
                under = {"val_unbiased": share(points)[0], "last": share(20 + seed)[0]}
                runs.add(method, seed, under, spec={"revisions": revisions})
    made = runs.made(select="last")
    assert [len(of.rows["last"].records) for of in made.lines] == [5, 5]
    assert [of.rows["val_unbiased"].mean for of in made.lines] == [30 / 40, 30 / 40]
    assert all(of.ranks for of in made.lines)


def test_tau_is_that_of_scipy_within_the_section() -> None:
    made = example().made()
    (agreement,) = [of for of in made.agreements if of.rule == "last"]
    orders = [
        [line(made, name).ranks[rule] for name in "abcd"] for rule in ("val_unbiased", "last")
    ]
    assert agreement.tau == pytest.approx(stats.kendalltau(*orders).statistic)
    assert agreement.tau < 0.5
    assert agreement.lines == 4
    assert agreement.moved == ("a", 1.0, 3.0)
    (own,) = [of for of in made.agreements if of.rule == "val_unbiased"]
    assert (own.tau, own.moved, own.reversed_) == (1.0, None, 0)


def test_tau_by_hand_and_with_ties() -> None:
    assert kendall([1, 2, 3, 4], [1, 2, 3, 4]) == 1.0
    assert kendall([1, 2, 3, 4], [4, 3, 2, 1]) == -1.0
    # of six pairs, 1-2 is turned, and five are not: (5 - 1) / 6
    assert kendall([1, 2, 3, 4], [2, 1, 3, 4]) == pytest.approx(4 / 6)
    # dfr, jtt, upweight, rest, groupdro, lff, erm on digits by val_unbiased and by last: lff
    # overtakes four, and two become equal, so (16 - 4) / sqrt(21 * 20)
    own, last = [77.5, 41.4, 39.5, 36.0, 34.1, 31.4, 14.0], [77.5, 28.7, 23.9, 23.9, 19, 31.6, 13.2]
    assert kendall(own, last) == pytest.approx(12 / (21 * 20) ** 0.5)
    assert np.isnan(kendall([1, 1], [1, 2]))
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.integers(0, 5, (2, 9))
        assert kendall(x.tolist(), y.tolist()) == pytest.approx(stats.kendalltau(x, y).statistic)


def test_the_gap_to_the_last_epoch_is_paired_by_seed_and_sample() -> None:
    runs = example()
    made = runs.made()
    for name in "abcd":
        expected = parts(runs.table(name, "val_unbiased") - runs.table(name, "last"), EQUAL)
        gap = line(made, name).gaps["val_unbiased"]
        assert gap.mean == pytest.approx(expected.mean)
        assert (gap.low, gap.high) == pytest.approx(expected.interval())
        same = line(made, name).gaps["val_average"]  # the same epoch
        assert (same.mean, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert "last" not in line(made, "a").gaps
    (alone,) = protocols(runs.records)  # without predictions
    d = (runs.table("a", "val_unbiased") - runs.table("a", "last")).mean(axis=0)
    gap = line(alone, "a").gaps["val_unbiased"]
    assert (gap.mean, gap.low, gap.high) == pytest.approx((d.mean(), *interval(d.tolist())))
    assert "over seeds alone" in MARKDOWN(grids(alone)[1])
    assert "over seeds alone" not in MARKDOWN(grids(made)[1])


def test_the_best_and_reversed_pairs_are_those_that_tests_confirm() -> None:
    runs = Runs()
    for seed in range(4):
        high, low, middle = share(38 - seed % 2, 4 + seed % 2, 20)
        runs.add("a", seed, {"val_unbiased": high, "last": low})
        runs.add("b", seed, {"val_unbiased": low, "last": high})
        runs.add("c", seed, {"last": middle})
    made = runs.made()
    by_rule = {of.rule: of for of in made.agreements}
    assert (by_rule["val_unbiased"].best, by_rule["last"].best) == (["a"], ["b"])
    assert by_rule["last"].reversed_ == 3
    assert by_rule["last"].tau == -1.0
    assert line(made, "a").best == {"val_unbiased"}
    chosen = runs.made(select="last")
    assert {of.rule: of.best for of in chosen.agreements}["last"] == ["b"]
    assert [of.tau for of in chosen.agreements if of.rule == "val_unbiased"] == [-1.0]


def test_labels_are_worth_the_best_that_sees_them_minus_the_best_that_sees_less() -> None:
    runs = example()
    for seed in range(3):
        bad = {rule: np.arange(40) < 3 + seed for rule in RULES}
        runs.add("bit", seed, bad, seen=("conflict", "none"))
        runs.add("worse", seed, {"last": np.arange(40) < 1}, seen=("groups", "none"))
    made = runs.made()
    found = {(of.best.name, of.best_of_less.name): of for of in made.premiums}
    assert set(found) == {("bit", "a"), ("sees", "a")}  # not against "bit", which is worse than "a"
    rule = "val_unbiased"
    expected = parts(runs.table("sees", rule) - runs.table("a", rule), EQUAL)
    premium = found["sees", "a"]
    assert (premium.level, premium.less) == ((2, 0, 0), (0, 0, 0))
    assert premium.difference.mean == pytest.approx(expected.mean)
    assert (premium.difference.low, premium.difference.high) == pytest.approx(expected.interval())


def test_labels_of_validation_and_of_training_are_not_more_than_each_other() -> None:
    runs = Runs()
    for seed in range(2):
        runs.add("fits", seed, {"last": np.arange(40) < 30 + seed}, seen=("none", "fit"))
        runs.add("bit", seed, {"last": np.arange(40) < 20 + seed}, seen=("conflict", "none"))
    assert runs.made().premiums == []


def test_rows_with_failed_runs_or_one_seed_have_points_and_no_rank() -> None:
    runs = example()
    runs.add("once", 0, {"last": np.arange(40) < 39})
    for seed in range(3):
        runs.add("fails", seed, {"last": np.arange(40) < 39}, failed=seed == 0)
    made = runs.made()
    for name in ("once", "fails"):
        assert line(made, name).ranks == {}
        assert line(made, name).best == frozenset()
    assert {of.lines for of in made.agreements} == {4}
    (note,) = [note for note in made.notes if note.startswith("Not ranked")]
    assert note.endswith("fails, once, sees.")


def test_no_order_by_a_worst_group_that_chance_decides() -> None:
    made = example().made(metric="worst_group")
    assert made.agreements == []
    assert line(made, "a").ranks == {}
    gap = line(made, "a").gaps["val_average"]
    assert (gap.low, gap.high) == (0.0, 0.0)  # the same predictions


def test_rules_without_values_are_left_out_and_named() -> None:
    runs = example()
    runs.records = [
        replace(r, outcomes={k: v for k, v in r.outcomes.items() if k != "val_conflict"})
        for r in runs.records
    ]
    made = runs.made()
    assert made.rules == [rule for rule in RULES if rule != "val_conflict"]
    assert "Without values, so not shown: val_conflict." in made.notes
    only = [replace(r, outcomes={"last": r.outcomes["last"]}) for r in runs.records]
    with pytest.raises(RecordError, match="--protocol compares selection rules"):
        protocols(only)
    with pytest.raises(UnknownNameError, match="Did you mean 'last'"):
        protocols(runs.records, select="lasst")


def test_small_validation_groups_and_old_rules_are_noted() -> None:
    notes = example().made().notes
    assert notes[0].startswith("The smallest group of the validation split has 10 samples")
    assert notes[1].startswith("All lines: epochs were selected by older rules")


def test_the_order_of_records_changes_nothing() -> None:
    runs = example()
    expected = as_json([runs.made()])
    for seed in range(3):
        random.Random(seed).shuffle(runs.records)
        assert as_json([runs.made()]) == expected


def test_each_data_set_has_its_own_tables() -> None:
    runs = example()
    other = [
        replace(r, id=f"other {r.id}", spec=replace(r.spec, dataset=Choice("other")))
        for r in runs.records
    ]
    found = protocols([*runs.records, *other])
    assert [of.own.dataset for of in found] == ["other", "toy ratio=0.05"]
    (one,) = protocols([*runs.records, *other], dataset="other")
    assert one.own.dataset == "other"


def test_names_of_strangers_stay_text_in_every_format() -> None:
    runs, names = Runs(), ["a|<i>_%", "=HYPERLINK(1)", "**b** [x](y)", "\x1b[31mred"]
    for number, name in enumerate(names):
        for seed in range(2):
            seen = ("groups", "none") if number == 3 else ("none", "none")
            runs.add(name, seed, {"last": np.arange(40) < 9 + number + seed}, seen=seen)
    made = runs.made()
    assert made.premiums
    written = {write: "".join(map(write, grids(made))) for write in (HTML, MARKDOWN, latex)}
    assert "<i>" not in written[HTML]
    assert not any("\x1b" in text for text in written.values())
    assert r"\*\*b\*\*" in written[MARKDOWN]
    assert r"a\textbar{}\textless{}i\textgreater{}\_\%" in written[latex]
    assert written[latex].isascii()
    rows = list(csv.DictReader(io.StringIO(as_csv([made]))))
    assert "'=HYPERLINK(1)" in {row["method"] for row in rows}
    assert len(rows) == len(names) * len(RULES)
    assert not any(cell.startswith("=") for row in rows for cell in row.values())
    (data,) = json.loads(as_json([made]))
    assert {of["name"] for of in data["lines"]} == set(names)


def test_tables_hold_points_with_ranks_gaps_orders_and_premiums() -> None:
    texts = [MARKDOWN(grid) for grid in grids(example().made())]
    headings = [text.splitlines()[0].rpartition(": ")[2] for text in texts]
    assert headings == [
        "by selection rule",
        "selection gap",
        "who is best under which rule",
        "what more labels are worth",
    ]
    points, gaps, orders, premiums = texts
    assert "val_unbiased \\*" in points
    assert "(3) |" in points
    assert "| **no bias labels in training, no bias labels in validation** |" in points
    assert " 0.0 |" in gaps
    assert "a: 1 to 3" in orders
    assert "| group labels in training, no bias labels in validation " in premiums


def put(folder: Path, records: list[Record]) -> None:
    folder.mkdir()
    for record in records:
        (folder / f"{record.spec.stem}.json").write_text(to_json(record))


def test_a_page_and_the_command_line_make_the_same_tables(debiasbench: Cli) -> None:
    put(Path("records"), example().records)
    printed = debiasbench("leaderboard", "records", "--protocol", "--select", "last").stdout
    assert "last \\*" in printed
    page = Path("page.md")
    page.write_text(
        "<!-- debiasbench leaderboard records --protocol --select last -->\n<!-- /debiasbench -->\n"
    )
    assert regenerated(page)[1].splitlines()[2:-2] == printed.splitlines()
    result = debiasbench("leaderboard", "records", "--protocol", "--format", "json")
    (data,) = json.loads(result.stdout)
    assert data["own_rule"] == "val_unbiased"
    under = {of["name"]: of["under"] for of in data["lines"]}
    means = {of["rule"]: of["mean"] for of in under["a"]}
    assert means["last"] == pytest.approx(example().table("a", "last").mean())
    assert means["val_unbiased"] == pytest.approx(example().table("a", "val_unbiased").mean())


@pytest.mark.parametrize(
    "option",
    [{"pivot": "dataset.ratio"}, {"panel": "groups"}, {"columns": "density"}, {"baseline": "a"}],
)
def test_options_without_meaning_beside_it_are_refused(option: dict[str, str]) -> None:
    (name,) = option
    with pytest.raises(OptionError, match=f"--protocol cannot be combined with --{name}"):
        table([Path("nowhere")], "markdown", protocol=True, **option)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="--protocol cannot be combined with --across"):
        table([Path("nowhere")], "markdown", protocol=True, across=True)

"""Boards: what is averaged, what is noted instead, and every format."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from debiasbench import Supervision
from debiasbench.common.errors import UnknownNameError
from debiasbench.leaderboard import FORMATS, boards, cells, distinct, frame, render
from debiasbench.records.record import Record
from debiasbench.specs.spec import Choice
from tests.records.test_record import SPEC, make_record


def run(
    method: str,
    seed: int,
    hits: tuple[int, ...] = (9, 5, 4, 10),
    *,
    supervision: tuple[str, str] = ("none", "none"),
    options: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    failed: bool = False,
    **changes: Any,
) -> Record:
    spec = replace(
        SPEC,
        method=Choice(method, options or {}),
        seed=seed,
        training={**SPEC.training, **(training or {})},
        revisions={"rules": 2},
    )
    seen = Supervision(*supervision)  # type: ignore[arg-type]
    return make_record(spec, hits, failed=failed, supervision=seen, **changes)


def particular(notes: list[str]) -> list[str]:
    """Return the notes without those that every board of such small splits has."""
    usual = ("Worst group (", "The smallest group of the validation split")
    return [note for note in notes if not note.startswith(usual)]


ERM = [run("erm", s, (10, 2 + s % 2, 3, 10)) for s in range(5)]
LFF = [run("lff", s, (9, 6 + s % 2, 7, 9)) for s in range(5)]
REST = [run("rest", s, (9, 8, 7 + s % 2, 9), supervision=("conflict", "none")) for s in range(5)]


def test_a_row_is_the_mean_and_deviation_over_seeds_with_students_interval() -> None:
    (board,) = boards(ERM)
    (row,) = board.rows
    values = [(10 + 2 + s % 2 + 3 + 10) / 40 for s in range(5)]
    assert row.values == dict(enumerate(values))
    assert row.mean == pytest.approx(np.mean(values))
    assert row.deviation == pytest.approx(np.std(values, ddof=1))
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (row.interval.low, row.interval.high) == pytest.approx((low, high))
    assert row.interval.basis == "seeds"


def test_rows_are_split_by_supervision_and_the_best_is_first_in_its_section() -> None:
    (board,) = boards([*REST, *ERM, *LFF])
    assert [(r.method, r.train, r.val) for r in board.rows] == [
        ("lff", "none", "select"),
        ("erm", "none", "select"),
        ("rest", "conflict", "select"),
    ]


@pytest.mark.parametrize(
    ("rule", "val"),
    [("last", "none"), ("val_average", "none"), ("val_worst_group", "select")],
)
def test_a_rule_that_reads_group_labels_raises_the_rows_supervision(rule: str, val: str) -> None:
    (board,) = boards(ERM, select=rule)
    assert board.rows[0].val == val
    unlabelled = [run("adapts", 0, supervision=("none", "inputs"))]
    row = boards(unlabelled, select=rule)[0].rows[0]
    assert row.val == (val if val == "select" else "inputs")
    fitted = [run("dfr", 0, supervision=("none", "fit"))]
    assert boards(fitted, select=rule)[0].rows[0].val == "fit"


def test_inputs_of_validation_are_a_section_between_nothing_and_labels() -> None:
    seen = [("a", "select"), ("b", "inputs"), ("c", "none"), ("d", "fit")]
    runs = [run(name, 0, supervision=("none", val)) for name, val in seen]
    (board,) = boards(runs, select="last")
    assert [row.val for row in board.rows] == ["none", "inputs", "select", "fit"]
    assert cells.section(board.rows[1]) == (
        "no bias labels in training, validation inputs without labels"
    )


def test_the_metric_and_rule_default_to_the_data_sets_own() -> None:
    (board,) = boards(ERM)
    assert (board.metric, board.rule) == ("unbiased", "val_unbiased")
    (other,) = boards(ERM, metric="conflict", select="last")
    assert other.rows[0].mean == pytest.approx(np.mean([(2 + s % 2 + 3) / 20 for s in range(5)]))
    with pytest.raises(UnknownNameError, match="Did you mean 'conflict'"):
        boards(ERM, metric="conflct")


def test_the_difference_to_a_baseline_is_paired_by_seed() -> None:
    (board,) = boards([*ERM, *LFF[1:], *REST], metric="conflict", baseline="erm")
    rows = {row.method: row for row in board.rows}
    assert math.isnan(rows["erm"].difference.mean)
    paired = [(13 + s % 2 - (5 + s % 2)) / 20 for s in range(1, 5)]
    assert rows["lff"].difference.mean == pytest.approx(np.mean(paired))
    paired = [(15 + s % 2 - (5 + s % 2)) / 20 for s in range(5)]
    to_erm = rows["rest"].difference
    assert (to_erm.mean, to_erm.low, to_erm.high) == pytest.approx((np.mean(paired),) * 3)
    assert to_erm.p == 0
    assert "minus erm, points" in render([board], "markdown")
    assert "+50.0 (+50.0 to +50.0)" in render([board], "markdown")
    with pytest.raises(UnknownNameError, match="Did you mean 'erm'"):
        boards(ERM, baseline="emr")


def test_different_options_are_different_rows_named_by_what_differs() -> None:
    records = [run("rest", 0, options={"density": d, "grow": "gradient"}) for d in (0.05, 0.01)]
    names = [row.name for row in boards(records)[0].rows]
    assert sorted(names) == ["rest (density=0.01)", "rest (density=0.05)"]


def test_different_training_settings_are_never_averaged() -> None:
    records = [run("erm", 0), run("erm", 1, training={"lr": 0.01})]
    assert sorted(row.name for row in boards(records)[0].rows) == [
        "erm (train.lr=0.01)",
        "erm (train.lr=0.1)",
    ]


def test_different_data_or_models_are_different_boards() -> None:
    other_model = replace(SPEC, model=Choice("cnn"))
    other_ratio = replace(SPEC, dataset=Choice("toy", {"ratio": 0.01}))
    records = [make_record(), make_record(other_model), make_record(other_ratio)]
    assert [(b.dataset, b.model) for b in boards(records)] == [
        ("toy ratio=0.01", "mlp hidden=[4]"),
        ("toy ratio=0.05", "cnn"),
        ("toy ratio=0.05", "mlp hidden=[4]"),
    ]


def test_equal_options_that_gave_other_data_are_never_averaged_and_noted() -> None:
    odd = run("erm", 9)
    odd = replace(odd, task=replace(odd.task, fingerprint="beef"))
    made = boards([*ERM, odd])
    assert [len(b.rows[0].values) for b in made] in ([5, 1], [1, 5])
    assert all("gave other data elsewhere" in b.notes[-1] for b in made)


def test_groups_without_test_samples_are_named_and_others_are_not() -> None:
    records = []
    for record in ERM:
        counts = {**record.task.group_counts, "test": [10, 0, 0, 10]}
        records.append(replace(record, task=replace(record.task, group_counts=counts)))
    (board,) = boards(records, metric="worst_group")
    (note,) = [n for n in board.notes if n.startswith("The test split has no sample of")]
    task = records[0].task
    (c0, c1), (b0, b1) = task.classes, task.biases
    assert f"no sample of {c0} with {b1}, {c1} with {b0}: unbiased" in note
    assert not [n for n in boards(ERM)[0].notes if "no sample of" in n]


def lacking(records: list[Record], test: list[int]) -> list[Record]:
    """Make records of another test split, with this number of samples in each group."""
    changed = []
    for record in records:
        counts = {**record.task.group_counts, "test": test}
        hits = [min(hit, n) for hit, n in zip((10, 9, 8, 7), test, strict=True)]
        outcomes = {
            rule: replace(o, test=replace(o.test, hits=hits)) for rule, o in record.outcomes.items()
        }
        task = replace(record.task, group_counts=counts)
        changed.append(replace(record, task=task, outcomes=outcomes))
    return changed


@pytest.mark.parametrize(
    ("test", "incomplete"),
    [
        ([10, 10, 10, 10], ()),
        ([10, 10, 0, 0], ("unbiased", "balanced_groups", "worst_group", "conflict", "aligned")),
        ([10, 0, 10, 10], ("unbiased", "balanced_groups", "worst_group", "conflict")),
        ([0, 10, 10, 10], ("unbiased", "balanced_groups", "worst_group", "aligned")),
    ],
)
def test_numbers_that_leave_out_a_group_without_test_samples_are_marked(
    test: list[int], incomplete: tuple[str, ...]
) -> None:
    (board,) = made = boards(lacking(ERM, test))
    assert board.incomplete == incomplete
    line = next(x for x in render(made, "markdown").splitlines() if "erm" in x)
    names = ("unbiased", "", "", "", "conflict", "aligned", "worst_group")
    cells = [cell.strip(" *") for cell in line.split("|")][1:10]
    for name, cell in zip(names, cells[1:8], strict=True):
        assert ("†" in cell) == (name in incomplete and cell != "—"), (name, cell)
    notes = [note for note in board.notes if "no sample of" in note]
    assert len(notes) == bool(incomplete)
    for name in incomplete:
        assert name.replace("_", " ") in notes[0]
        assert "(marked †)" in notes[0]
    assert next(csv.DictReader(io.StringIO(render(made, "csv"))))["incomplete"].split() == [
        *incomplete
    ]
    assert (r"$\dagger$" in render(made, "latex")) == bool(incomplete)


def test_failed_missing_and_undefined_seeds_are_noted_and_not_averaged() -> None:
    no_conflict = run("lff", 2, (9, 0, 0, 9))
    counts = {**no_conflict.task.group_counts, "test": [10, 0, 0, 10]}
    no_conflict = replace(no_conflict, task=replace(no_conflict.task, group_counts=counts))
    no_rule = run("lff", 3)
    outcomes = {k: v for k, v in no_rule.outcomes.items() if k != "val_unbiased"}
    records = [
        *ERM,
        run("lff", 0),
        run("lff", 1, failed=True),
        no_conflict,
        replace(no_rule, outcomes=outcomes),
    ]
    (board,) = boards(records, metric="conflict")
    (lff,) = [row for row in board.rows if row.method == "lff"]
    assert lff.values == {0: pytest.approx(9 / 20)}
    assert "lff: no record for seed 4." in board.notes
    assert "lff: seed 1 does not count: NonFiniteLoss at step 12." in board.notes
    assert "lff: seed 2 does not count: conflict is undefined on this test split." in board.notes
    assert "lff: seed 3 does not count: val_unbiased is undefined on the validation split." in (
        board.notes
    )
    line = next(x for x in render([board], "markdown").splitlines() if x.startswith("| lff"))
    assert [cell.strip() for cell in line.split("|")][1:5] == ["lff", "45.0", "—", "1 of 4"]


def test_a_method_whose_every_seed_failed_stays_in_the_table() -> None:
    (board,) = boards([*ERM, run("lff", 0, failed=True)])
    assert board.rows[-1].method == "lff"
    assert math.isnan(board.rows[-1].mean)
    assert "0 of 1" in render([board], "markdown")


def test_one_seed_has_no_interval_and_is_not_compared() -> None:
    (board,) = boards([run("erm", 0), run("lff", 0)])
    assert not any(row.marked for row in board.rows)
    assert particular(board.notes) == [
        "One seed each, so there is no interval and no comparison: erm, lff."
    ]


def test_mixed_versions_and_machines_are_noted() -> None:
    odd = run("lff", 0)
    versions = {**odd.provenance.versions, "torch": "2.11.0"}
    odd = replace(odd, provenance=replace(odd.provenance, versions=versions, hardware="another"))
    notes = boards([*ERM, odd])[0].notes
    assert "Made with different versions of torch: 2.11.0; 2.15.0." in notes
    assert any(n.endswith("so times do not compare: a machine; another.") for n in notes)


def test_half_precision_is_noted() -> None:
    odd = run("lff", 0)
    odd = replace(odd, provenance=replace(odd.provenance, arithmetic={"precision": "bf16"}))
    (board,) = boards([*ERM, odd])
    assert "Made with different precisions: bf16; fp32." in board.notes
    assert "torch 2.15.0, bf16" in board.conditions
    assert "fp32" not in board.conditions


def test_seeds_of_different_plugin_versions_are_different_rows() -> None:
    def by(version: str, seed: int) -> Record:
        record = run("mine", seed)
        plugins = {**record.provenance.plugins, "method": f"acme {version}"}
        return replace(record, provenance=replace(record.provenance, plugins=plugins))

    (board,) = boards([by("1.0", 0), by("1.0", 1), by("2.0", 2)])
    assert sorted((row.name, len(row.values)) for row in board.rows) == [
        ("mine (of=acme 1.0)", 2),
        ("mine (of=acme 2.0)", 1),
    ]


def test_selecting_by_average_on_a_balanced_validation_split_is_noted() -> None:
    note = "val_average reads no bias labels, but the validation split was balanced with them."
    assert note in boards(ERM, select="val_average")[0].notes
    assert note not in boards(ERM, select="last")[0].notes


def test_a_repeated_spec_is_named_and_counted_once() -> None:
    twin = run("erm", 0, (1, 1, 1, 1))
    records, problems = distinct([*ERM, twin, run("erm", 1, (10, 3, 3, 10))])
    assert records == ERM
    assert ["different results" in p for p in problems] == [True, False]


def test_the_frame_recomputes_every_metric_for_every_rule() -> None:
    table = frame(ERM)
    assert len(table) == 5 * 5
    first = table[(table["seed"] == 0) & (table["rule"] == "last")].iloc[0]
    stored = ERM[0].outcomes["last"].test.metrics
    assert {name: first[name] for name in stored} == pytest.approx(stored)


def test_markdown_is_exactly_this() -> None:
    (board,) = boards([*REST, *ERM, *LFF])
    assert render([board], "markdown") == EXPECTED_MARKDOWN


NASTY = "a|b\n_<i>%$&{}#~^\\*[x](y)`"


def nasty_board() -> Any:
    (board,) = boards([run("erm", s, options={"name": NASTY}) for s in (0, 1)])
    row = replace(board.rows[0], setting=NASTY)
    return replace(board, rows=[row], dataset=NASTY)


def test_html_shows_names_and_runs_nothing() -> None:
    text = render([nasty_board()], "html-table")
    assert "<i>" not in text
    assert "a|b _&lt;i&gt;%$&amp;{}" in text


def test_markdown_names_cannot_break_the_table_or_become_markup() -> None:
    text = render([nasty_board()], "markdown")
    row = next(line for line in text.splitlines() if line.startswith("| erm"))
    assert row.replace("\\|", "").count("|") == 14
    assert "\\<i\\>" in text
    assert "\\[x\\](y)" in text


def test_latex_names_are_escaped() -> None:
    text = render([nasty_board()], "latex")
    assert (
        r"a\textbar{}b \_\textless{}i\textgreater{}\%\$\&\{\}\#\textasciitilde{}"
        r"\textasciicircum{}\textbackslash{}{*}{[}x{]}(y)\textasciigrave{}" in text
    )
    assert r"\multicolumn{8}{l}{\emph{no bias labels in training" in text


def test_json_and_csv_hold_full_numbers_and_the_ids_of_the_records() -> None:
    made = boards([*REST, *ERM, run("lff", 0, failed=True)])
    data = json.loads(render(made, "json"), parse_constant=pytest.fail)
    erm = next(r for r in data[0]["rows"] if r["method"] == "erm")
    assert erm["values"] == {
        str(r.spec.seed): v for r, v in zip(ERM, made[0].rows[0].values.values(), strict=True)
    }
    assert erm["records"] == [r.id for r in ERM]
    table = list(csv.DictReader(io.StringIO(render(made, "csv"))))
    assert [row["method"] for row in table] == ["erm", "lff", "rest"]
    assert float(table[0]["mean"]) == pytest.approx(made[0].rows[0].mean, abs=1e-12)
    assert table[0]["records"].split() == [r.id for r in ERM]
    assert table[1]["mean"] == ""


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1+1", "@x", "\tx", "=cmd|' /C calc'!A0"])
def test_csv_text_is_no_formula_and_numbers_stay_numbers(name: str) -> None:
    records = [run("erm", s, (10, 2, 3, 10)) for s in (-2, -1)]
    records += [run(name, s, (9, 2, 3 + s, 9)) for s in (-2, -1)]
    made = boards(records, baseline="erm")
    table = {row["method"]: row for row in csv.DictReader(io.StringIO(render(made, "csv")))}
    assert set(table) == {"erm", f"'{name}"}
    assert float(table[f"'{name}"]["difference"]) < 0
    assert table["erm"]["seeds"] == "-2 -1"


@pytest.mark.parametrize("form", FORMATS)
def test_no_format_holds_what_a_terminal_obeys(form: str) -> None:
    records = [run("\x1b[31mred\x9b\x7f", s, options={"\x1b]0;t\x07": "\x1b"}) for s in (0, 1)]
    text = render(boards(records), form)
    assert not [c for c in text if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)]


@pytest.mark.slow
def test_tables_are_made_without_torch() -> None:
    code = (
        "import sys; from debiasbench.leaderboard import boards, render; "
        "from debiasbench.leaderboard.page import regenerated; "
        "from debiasbench.records.store import read_all; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


EXPECTED_MARKDOWN = """\
### toy ratio=0.05 · mlp hidden=\\[4\\]

| method   |     unbiased % |   95 % interval |   seeds |   rank |   conflict % |   aligned % |   worst group % |   density |   parameters |   MFLOPs to predict |   TFLOPs to train |   seconds |
|:---------|---------------:|----------------:|--------:|-------:|-------------:|------------:|----------------:|----------:|-------------:|--------------------:|------------------:|----------:|
| **no bias labels in training, group labels of validation for selection** |||||||||||||
| **lff**  | **78.5 ± 1.4** |     76.8 – 80.2 |       5 | 1 of 2 |         67.0 |        90.0 |          64.0 ‡ |       0.1 |          100 |                   2 |                 3 |         8 |
| erm      |     63.5 ± 1.4 |     61.8 – 65.2 |       5 | 2 of 2 |         27.0 |       100.0 |          24.0 ‡ |       0.1 |          100 |                   2 |                 3 |         8 |
| **conflict bit in training, group labels of validation for selection** |||||||||||||
| rest     |     83.5 ± 1.4 |     81.8 – 85.2 |       5 |      — |         77.0 |        90.0 |          74.0 ‡ |       0.1 |          100 |                   2 |                 3 |         8 |

- Unbiased accuracy on the test split: mean ± standard deviation over seeds, at the epoch selected by val_unbiased. 95 % intervals and tests: over seeds alone, because predictions are missing, so that intervals are too narrow. Bold: the best of its section, and those that a paired test (Holm, 5 %) cannot distinguish from it. Rank: within its section; the ranges hold together at 95 %.
- Samples: 200 train (5 % conflicting), 40 val (50 % conflicting), 40 test (50 % conflicting). Training: epochs=2, lr=0.1. Made on a machine, torch 2.15.0.
- Worst group (‡): groups have as few as 10 test samples. A classifier that is right for 83.5 % of every group would show 71.2 % for its worst one by chance, so sections with such a row are not ranked by it.
- The smallest group of the validation split has 10 samples, so val_unbiased selects epochs by chance in part.
"""

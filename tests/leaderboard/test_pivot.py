"""One table over the values of an option: its columns, lines, notes and errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from debiasbench import Supervision
from debiasbench.common.errors import RecordError, UnknownNameError
from debiasbench.leaderboard import boards, pivots
from debiasbench.leaderboard.latex import latex
from debiasbench.leaderboard.markup import HTML, MARKDOWN
from debiasbench.leaderboard.page import regenerated
from debiasbench.leaderboard.pivot import write
from debiasbench.records.record import Record, to_json
from debiasbench.specs.spec import Choice
from tests.leaderboard.test_leaderboard import particular
from tests.records.test_record import SPEC, make_record

Cli = Callable[..., Result]


def run(
    method: str,
    seed: int,
    ratio: float,
    hits: tuple[int, ...],
    options: dict[str, Any] | None = None,
    seen: str = "none",
    training: dict[str, Any] | None = None,
    **changes: Any,
) -> Record:
    """A run on the toy data with this ratio, which has data of its own."""
    spec = replace(
        SPEC,
        dataset=Choice("toy", {"ratio": ratio, "split_seed": 0}),
        method=Choice(method, options or {}),
        seed=seed,
        training={**SPEC.training, **(training or {})},
        revisions={"rules": 2},
    )
    made = make_record(spec, hits, supervision=Supervision(train=seen), **changes)  # type: ignore[arg-type]
    return replace(made, task=replace(made.task, fingerprint=f"data {ratio}"))


ERM = [run("erm", s, ratio, (10, 2 + s, 3, 10)) for ratio in (0.1, 0.01) for s in range(3)]
REST = [
    run("rest", s, r, (9, 8 - (r < 0.1), 7 + s % 2, 9), {"density": 0.05}, "conflict")
    for r in (0.1, 0.02, 0.01)
    for s in range(3)
]


def test_columns_are_the_values_in_ascending_order_and_rows_are_methods() -> None:
    (pivot,) = pivots([*ERM, *REST], "dataset.ratio", metric="conflict", select="last")
    assert [column.value for column in pivot.columns] == [0.01, 0.02, 0.1]
    assert [line.row.name for line in pivot.lines] == ["erm", "rest"]
    erm, rest = ([row and row.mean for row in line.rows] for line in pivot.lines)
    assert erm == [pytest.approx(0.3), None, pytest.approx(0.3)]
    assert rest == [pytest.approx(43 / 60), pytest.approx(43 / 60), pytest.approx(46 / 60)]


@pytest.mark.parametrize("newer", [8, 10])
def test_of_two_revisions_a_cell_shows_the_newer_one_whichever_is_better(newer: int) -> None:
    old = [run("rest", s, 0.01, (9, 9, 9, 9)) for s in range(2)]
    spec = [replace(r.spec, revisions={"rules": 2, "method": 2}) for r in old]
    hits = (newer, newer, newer, newer)
    new = [replace(run("rest", s, 0.01, hits), spec=of, id=of.id) for s, of in enumerate(spec)]
    (pivot,) = pivots([*old, *new, *ERM], "dataset.ratio")
    (cell,) = [row for line in pivot.lines for row in line.present if row.method == "rest"]
    assert cell.mean == pytest.approx(newer / 10)


def test_a_data_set_is_chosen_although_some_values_have_only_others() -> None:
    other = [
        replace(r, spec=(s := replace(r.spec, dataset=Choice("digits", {"ratio": 0.5}))), id=s.id)
        for r in ERM
    ]
    (pivot,) = pivots([*ERM, *other], "dataset.ratio", dataset="toy")
    assert [column.value for column in pivot.columns] == [0.01, 0.1]


def test_each_cell_is_that_of_the_board_of_its_value() -> None:
    (pivot,) = pivots([*ERM, *REST], "dataset.ratio")
    by_name = {board.dataset: board for board in boards([*ERM, *REST])}
    for i, ratio in enumerate(("0.01", "0.02", "0.1")):
        rows = by_name[f"toy ratio={ratio} split_seed=0"].rows
        cells = [row for line in pivot.lines if (row := line.rows[i]) is not None]
        assert [(r.values, r.interval, r.costs, r.marked) for r in cells] == [
            (r.values, r.interval, r.costs, r.marked) for r in rows
        ]


def test_markdown_is_exactly_this() -> None:
    (pivot,) = pivots([*ERM, *REST], "dataset.ratio", metric="conflict", select="last")
    assert write(pivot, MARKDOWN) == EXPECTED


def test_the_option_may_be_the_methods_the_models_or_the_trainings() -> None:
    densities = [
        run("rest", seed, 0.1, (9, 8, 7, 9), {"density": density})
        for density in (0.5, 0.05)
        for seed in range(2)
    ]
    (pivot,) = pivots([*densities, *ERM[:3]], "density")
    assert [column.value for column in pivot.columns] == [0.05, 0.5]
    assert [line.row.name for line in pivot.lines] == ["rest"]
    assert particular(pivot.notes) == ["Not shown, without the option density: erm."]
    assert "toy ratio=0.1 split_seed=0 · mlp hidden=\\[4\\] · unbiased % by density" in write(
        pivot, MARKDOWN
    )
    lrs = [
        run("erm", seed, 0.1, (9, 8, 7, 9), training={"lr": lr})
        for lr in (0.1, 0.01)
        for seed in range(2)
    ]
    (pivot,) = pivots(lrs, "train.lr")
    assert [column.value for column in pivot.columns] == [0.01, 0.1]
    assert "lr=" not in write(pivot, MARKDOWN)
    (pivot,) = pivots(ERM[:3], "model.hidden")
    assert "| hidden [4] |".replace("[", "\\[").replace("]", "\\]") in " ".join(
        write(pivot, MARKDOWN).split()
    )


def test_rows_with_other_options_are_other_lines_named_by_them() -> None:
    sparser = [run("rest", s, 0.1, (9, 9, 9, 9), {"density": 0.01}) for s in range(3)]
    denser = [run("rest", s, 0.01, (9, 8, 7, 9), {"density": 0.5}) for s in range(3)]
    (pivot,) = pivots([*sparser, *denser], "dataset.ratio")
    assert [(line.row.name, [row is None for row in line.rows]) for line in pivot.lines] == [
        ("rest (density=0.01)", [True, False]),
        ("rest (density=0.5)", [False, True]),
    ]


def test_seeds_costs_and_notes_that_differ_between_columns_are_shown() -> None:
    failed = run("erm", 3, 0.1, (1, 1, 1, 1), failed=True)
    single = run("erm", 0, 0.5, (9, 5, 4, 10))
    assert single.cost is not None
    single = replace(single, cost=replace(single.cost, training_seconds=20.0))
    (pivot,) = pivots([*ERM, failed, single], "dataset.ratio")
    note = "erm: seed 3 does not count: NonFiniteLoss at step 12."
    assert f"dataset.ratio=0.1: {note}" in pivot.notes
    (line,) = [line for line in write(pivot, MARKDOWN).splitlines() if line.startswith("| erm")]
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[4] == "70.0"  # one seed: no deviation, no interval
    assert cells[5:9] == ["1, 3, 3 of 4", "0.1", "3", "8 – 20"]


def test_an_unknown_option_and_data_that_differ_are_errors() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'dataset.ratio'"):
        pivots(ERM, "dataset.ratios")
    odd = replace(ERM[0], task=replace(ERM[0].task, fingerprint="beef"), id="odd")
    with pytest.raises(RecordError, match=r"different data for toy split_seed=0 with .*=0.1"):
        pivots([*ERM, odd], "dataset.ratio")


def test_each_data_set_has_a_pivot() -> None:
    other = [replace(r, id=f"other {r.id}", spec=replace(r.spec, model=Choice("cnn"))) for r in ERM]
    assert [p.columns[0].board.model for p in pivots([*ERM, *other], "dataset.ratio")] == [
        "cnn",
        "mlp hidden=[4]",
    ]
    (pivot,) = pivots([*ERM, *other], "model.hidden", dataset="toy")[:1]
    assert pivot.option == "model.hidden"


def test_latex_and_html_escape_everything() -> None:
    nasty = [run("a|<i>_%", s, 0.1, (10, 2, 3, 10)) for s in range(2)]
    (pivot,) = pivots([*nasty, *REST], "dataset.ratio")
    assert r"a\textbar{}\textless{}i\textgreater{}\_\%" in write(pivot, latex)
    assert "—" not in write(pivot, latex)
    assert "<i>" not in write(pivot, HTML)


def put(folder: Path, records: list[Record]) -> None:
    folder.mkdir()
    for record in records:
        (folder / f"{record.spec.stem}.json").write_text(to_json(record))


def test_a_page_and_the_command_line_make_the_same_table(debiasbench: Cli) -> None:
    put(Path("records"), [*ERM, *REST])
    words = "--metric conflict --select last --pivot dataset.ratio"
    printed = debiasbench("leaderboard", "records", *words.split()).stdout
    page = Path("page.md")
    page.write_text(f"<!-- debiasbench leaderboard records {words} -->\n<!-- /debiasbench -->\n")
    assert regenerated(page)[1].splitlines()[2:-2] == printed.splitlines()
    assert " ratio 0.01 |" in printed


@pytest.mark.parametrize("words", [("--baseline", "erm"), ("--format", "csv")])
def test_a_pivot_has_no_baseline_and_is_a_table(debiasbench: Cli, words: tuple[str, str]) -> None:
    put(Path("records"), ERM)
    result = debiasbench("leaderboard", "records", "--pivot", "dataset.ratio", *words)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: --pivot cannot be combined with {words[0]}")


EXPECTED = """\
### toy split_seed=0 · mlp hidden=\\[4\\] · conflict % by dataset ratio

| method   |               ratio 0.01 |               ratio 0.02 |                ratio 0.1 |   seeds |   density |   TFLOPs to train |   seconds |
|:---------|-------------------------:|-------------------------:|-------------------------:|--------:|----------:|------------------:|----------:|
| **no bias labels in training, no bias labels in validation** ||||||||
| erm      | 30.0 ± 5.0 (17.6 – 42.4) |                        — | 30.0 ± 5.0 (17.6 – 42.4) |       3 |       0.1 |                 3 |         8 |
| **conflict bit in training, no bias labels in validation** ||||||||
| rest     | 71.7 ± 2.9 (64.5 – 78.8) | 71.7 ± 2.9 (64.5 – 78.8) | 76.7 ± 2.9 (69.5 – 83.8) |       3 |       0.1 |                 3 |         8 |

- Conflict accuracy on the test split in percent: mean ± standard deviation over seeds (95 % interval), after the last epoch. 95 % intervals and tests: over seeds alone, because predictions are missing, so that intervals are too narrow. Bold: the best of its section, and those that a paired test (Holm, 5 %) cannot distinguish from it.
- Samples: 200 train (5 % conflicting), 40 val (50 % conflicting), 40 test (50 % conflicting). Training: epochs=2, lr=0.1. Made on a machine, torch 2.15.0.
- —: there is no record.
- rest: density=0.05.
"""

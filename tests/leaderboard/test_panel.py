"""The panel of groups: which rows it has, its numbers over seeds, and every format."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from debiasbench.common.errors import OptionError, RecordError, UnknownNameError
from debiasbench.leaderboard import FORMATS, boards, table
from debiasbench.leaderboard.board import Board
from debiasbench.leaderboard.columns import PANEL, ordered
from debiasbench.leaderboard.panel import FLAT, grid, panels
from debiasbench.leaderboard.render import WRITERS
from debiasbench.records.inference import Inference
from debiasbench.records.reading import read
from debiasbench.records.record import Record
from debiasbench.specs.spec import Choice
from tests.leaderboard.test_leaderboard import ERM, run
from tests.records.test_verify import edit, inferring, set_at

STAGES = [
    {"name": "find", "seconds": 2.0, "flops": 1e12},
    {"name": "train", "seconds": 6.0, "flops": 2e12},
]


def infers(
    method: str,
    seed: int,
    stages: int = 1,
    *,
    supervision: tuple[str, str] = ("none", "none"),
    costs: Any = STAGES,
    **inferred: Any,
) -> Record:
    record = run(method, seed, supervision=supervision, inference=Inference(stages, **inferred))
    assert record.cost is not None
    return replace(record, cost=replace(record.cost, stages=costs))


FLAGS = [infers("flags", s, conflict=[5, 2 + s, 3 + s, 5]) for s in range(3)]  # 5 and 10 of 185
SCORES = [infers("scores", s, stages=2, auc=0.9 + s / 100) for s in range(3)]
CLUSTERS = [
    infers("clusters", s, supervision=("conflict", "none"), groups=[[90, 1, 1, 0], [5, 4, 4, 95]])
    for s in range(3)
]


def markdown(records: list[Record], columns: Any = None) -> str:
    return "\n".join(WRITERS["markdown"](grid(b, "markdown", columns)) for b in panels(records))


def test_a_row_has_mean_and_deviation_of_each_number_over_seeds() -> None:
    (board,) = panels(FLAGS)
    (row,) = board.rows
    found = [(5 + 2 * s) / 10 for s in range(3)]
    assert row.inferred["conflict_recall"] == pytest.approx(dict(enumerate(found)))
    cells = [cell.text for cell in grid(board, "markdown").rows[0]]
    assert cells[0] == "flags"
    assert cells[2] == f"{100 * np.mean(found):.1f} ± {100 * np.std(found, ddof=1):.1f}"
    precision = [(5 + 2 * s) / (15 + 2 * s) for s in range(3)]
    assert cells[3] == f"{100 * np.mean(precision):.1f} ± {100 * np.std(precision, ddof=1):.1f}"


def test_the_cost_to_infer_is_that_of_the_stages_before_it() -> None:
    (board,) = panels([*FLAGS, *SCORES])
    costs = {
        row.method: (row.inferred["infer_seconds"][0], row.inferred["infer_flops"][0])
        for row in board.rows
    }
    assert costs == {"flags": (2.0, 1e12), "scores": (8.0, 3e12)}
    text = markdown([*FLAGS, *SCORES], ("method", "infer_flops", "infer_seconds", "seconds"))
    assert re.search(r"\| scores +\| +3 \| +8 \| +8 \|", text)


def test_nothing_spent_before_an_inference_is_a_cost_of_0() -> None:
    (board,) = panels([infers("free", 0, stages=0, auc=0.5)])
    assert board.rows[0].inferred["infer_seconds"] == {0: 0.0}


@pytest.mark.parametrize("value", [None, "fast", True, math.nan, math.inf, [1]])
def test_a_stage_of_unknown_cost_gives_no_cost_to_infer(value: Any) -> None:
    (board,) = panels([infers("odd", 0, auc=0.5, costs=[{"seconds": value, "flops": value}])])
    assert board.rows[0].inferred["infer_seconds"] == {}
    assert "—" in [cell.text for cell in grid(board, "text").rows[0]]


def test_rows_are_methods_that_infer_by_declared_supervision_then_by_area() -> None:
    (board,) = panels([*ERM, *FLAGS, *CLUSTERS, *SCORES])
    assert [(row.method, row.train, row.val) for row in board.rows] == [
        ("scores", "none", "none"),  # the rule that ranks accuracies does not count here
        ("flags", "none", "none"),
        ("clusters", "conflict", "none"),
    ]
    assert not any(row.marked for row in board.rows)


def test_a_number_that_was_not_inferred_is_a_dash() -> None:
    text = markdown(SCORES, ("method", "conflict_recall", "worst_group_recall", "auc"))
    assert re.search(r"\| scores +\| +— \| +— \| +91.0 ± 1.0 \|", text)


def test_runs_without_an_inference_of_a_method_that_infers_are_named() -> None:
    older = run("flags", 3)
    (board,) = panels([*FLAGS, older, run("flags", 4, failed=True), *ERM])
    (row,) = board.rows
    assert list(row.values) == [0, 1, 2]
    assert "flags: seed 3 does not count: its record holds nothing that was inferred." in (
        board.notes
    )
    assert "flags: seed 4 does not count: NonFiniteLoss at step 12." in board.notes
    assert grid(board, "text").rows[0][1].text == "3 of 5"


def test_a_setting_that_infers_nothing_has_no_row() -> None:
    other = replace(ERM[0], spec=replace(ERM[0].spec, method=Choice("flags", {"off": True})))
    (board,) = panels([*FLAGS, replace(other, id=other.spec.id)])
    assert [row.options for row in board.rows] == [{}]


def test_a_number_that_is_undefined_for_a_seed_is_named_and_not_averaged() -> None:
    none = infers("flags", 5, conflict=[0, 0, 0, 0])
    (board,) = panels([*FLAGS, none])
    assert set(board.rows[0].inferred["conflict_precision"]) == {0, 1, 2}
    assert "flags: conflict precision is undefined for seed 5." in board.notes


def test_each_data_set_and_model_has_a_panel() -> None:
    other = [
        replace(r, spec=(spec := replace(r.spec, model=Choice("cnn"))), id=spec.id) for r in SCORES
    ]
    assert [board.model for board in panels([*FLAGS, *other, *ERM])] == ["cnn", "mlp hidden=[4]"]


def test_records_without_an_inference_have_no_panel() -> None:
    with pytest.raises(RecordError, match="No record here holds anything that a method inferred"):
        panels(ERM)
    with pytest.raises(UnknownNameError, match="Did you mean 'toy'"):
        panels(FLAGS, dataset="tooy")
    assert panels(FLAGS, dataset="toy")


def test_a_panel_changes_no_table_of_accuracies() -> None:
    plain = [replace(record, inference=None) for record in FLAGS]
    assert boards(FLAGS) == boards(plain)


def order(board: Board, by: str) -> list[str]:
    return [row.method for row in ordered(board, by, PANEL).rows]


def test_every_column_of_a_panel_can_be_shown_and_sorted_by() -> None:
    for name in PANEL:
        (board,) = panels([*FLAGS, *SCORES])
        assert set(order(board, name)) == {"flags", "scores"}
        assert len(grid(board, "text", (name,)).header) == 1
    assert order(board, "infer_seconds") == ["flags", "scores"]
    assert order(board, "conflict_recall") == ["flags", "scores"]


def test_csv_and_json_hold_full_numbers() -> None:
    made = panels([*FLAGS, *SCORES])
    (scores, flags) = csv.DictReader(io.StringIO(FLAT["csv"](made)))
    assert (scores["method"], scores["conflict_recall"], scores["seeds"]) == ("scores", "", "0 1 2")
    assert float(flags["conflict_recall"]) == pytest.approx(0.7)
    assert float(flags["conflict_recall_deviation"]) == pytest.approx(0.2)
    assert float(flags["infer_flops"]) == 1e12
    (board,) = json.loads(FLAT["json"](made))
    assert board["rows"][1]["values"]["conflict_recall"]["2"] == pytest.approx(0.9)
    assert board["rows"][1]["records"] == [record.id for record in FLAGS]


@pytest.mark.parametrize("form", FORMATS)
def test_a_panel_of_files_has_every_format(form: str, tmp_path: Path) -> None:
    inferring(tmp_path)
    text, problems = table([tmp_path], form, panel="groups")
    assert problems == []
    assert "erm" in text


def test_a_panel_of_files_leaves_out_a_forged_inference(tmp_path: Path) -> None:
    inferring(tmp_path)
    other = inferring(tmp_path, replace(read(next(tmp_path.glob("*.json"))).spec, seed=1))
    edit(other, set_at("inference", "auc", value=1.0))
    _, problems = table([tmp_path], "markdown", panel="groups")
    assert len(problems) == 1
    assert "the AUC is 1.0, but" in problems[0]


def test_options_without_meaning_for_a_panel_are_refused(tmp_path: Path) -> None:
    inferring(tmp_path)
    for name in ("metric", "select", "baseline", "pivot"):
        with pytest.raises(OptionError, match=f"--panel groups cannot be combined with --{name}"):
            table([tmp_path], "text", panel="groups", **{name: "x"})  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="Did you mean 'groups'"):
        table([tmp_path], "text", panel="group")
    with pytest.raises(UnknownNameError, match="Unknown column 'accuracy'"):
        table([tmp_path], "text", panel="groups", columns="accuracy")


@pytest.mark.slow
def test_a_panel_is_made_without_torch(tmp_path: Path) -> None:
    inferring(tmp_path)
    code = (
        "import sys; from pathlib import Path; from debiasbench.leaderboard import table; "
        f"table([Path({str(tmp_path)!r})], 'text', panel='groups'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

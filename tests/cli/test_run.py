"""`debiasbench run` by its exact words: the table, the record, and the second call."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from rich.console import Console

from debiasbench.common.display import Bar
from debiasbench.methods.erm import ERM
from debiasbench.records.record import from_json
from debiasbench.records.spec_file import write_specs
from debiasbench.records.store import Store, read
from tests.cli.calls import RUN, only, records
from tests.conftest import offering

Cli = Callable[..., Result]


def test_a_run_ends_in_a_table_and_the_place_of_the_record(debiasbench: Cli) -> None:
    result = debiasbench(*RUN, "--quiet")
    assert result.exit_code == 0, result.output
    (path,) = records()
    lines = result.stdout.splitlines()
    assert lines[0] == "erm on toy with mlp, seed 0"
    assert lines[2] == ("Test accuracy per group (samples), at the epoch selected by val_unbiased:")
    assert lines[4].split() == ["class", "red", "%", "blue", "%"]
    assert [line.split()[0] for line in lines[6:8]] == ["left", "right"]
    rules = [line.split()[0] for line in lines if line.startswith(("last", "val_"))]
    assert rules == ["last", "val_average", "val_unbiased", "val_worst_group", "val_conflict"]
    assert lines[-1] == f"Record: {path}"
    assert result.stderr == ""


def test_the_table_shows_what_the_record_holds(debiasbench: Cli) -> None:
    result = debiasbench(*RUN)
    record = from_json(records()[0].read_text())
    test = record.outcomes["val_unbiased"].test
    counts = record.task.group_counts["test"]
    shown = [f"{100 * h / n:.1f} ({n})" for h, n in zip(test.hits, counts, strict=True)]
    left, right = (line for line in result.stdout.splitlines() if line.startswith(("left", "rig")))
    assert left.split() == ["left", *shown[0].split(), "*", *shown[1].split()]
    assert right.split() == ["right", *shown[2].split(), *shown[3].split(), "*"]
    assert f"{100 * test.metrics['conflict']:.1f}" in result.stdout


def test_many_biases_are_summed_up_as_aligned_and_conflicting(debiasbench: Cli) -> None:
    result = debiasbench("run", "--method", "erm", "--epochs", 1, "--model", "mlp")
    lines = result.stdout.splitlines()
    assert lines[4].split() == ["class", "aligned", "%", "conflicting", "%"]
    assert all(line.endswith("(45)") and "(5)" in line for line in lines[6:16])


REST = ("run", "--method", "rest", "--epochs", "1", "--model", "mlp", "--set", "density=0.5")

ELSEWHERE = """
import runpy, sys
try:
    runpy.run_module("debiasbench", run_name="__main__")
finally:
    print("torch" in sys.modules)
"""


@pytest.mark.slow
def test_a_finished_run_is_found_without_importing_torch(debiasbench: Cli) -> None:
    assert debiasbench(*REST).exit_code == 0
    words = [sys.executable, "-c", ELSEWHERE, *REST]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "Already done on " in done.stdout
    assert done.stdout.splitlines()[-1] == "False"  # whether torch was imported


def test_without_a_terminal_progress_is_a_line_for_each_epoch(debiasbench: Cli) -> None:
    done = debiasbench(*REST)
    first, *epochs = done.stderr.splitlines()
    assert re.fullmatch(r"rest on digits, train: \d+ steps", first)
    for number, line in enumerate(epochs, 1):
        assert re.search(rf"epoch {number} of {len(epochs)}, .*, loss .*, val unbiased .* %", line)
    assert epochs
    assert "Record: results" in done.stdout


def test_the_second_run_says_that_it_is_done_and_changes_nothing(debiasbench: Cli) -> None:
    first = debiasbench(*RUN)
    before = records()[0].read_bytes()
    second = debiasbench(*RUN)
    assert second.exit_code == 0
    assert "Already done on " in second.stdout
    assert "use --overwrite always to run it again" in second.stdout
    assert "Already done" not in first.stdout
    assert records()[0].read_bytes() == before


def test_another_seed_makes_another_record(debiasbench: Cli) -> None:
    debiasbench(*RUN)
    debiasbench(*RUN, "--seed", 1)
    assert len(records()) == 2


def test_set_reaches_method_data_model_and_training(debiasbench: Cli) -> None:
    settings = "--set density=0.5 --set dataset.ratio=0.2 --set model.hidden=[8]"
    words = f"run --method rest --dataset toy --epochs 1 {settings} --set train.lr=0.01"
    result = debiasbench(*words.split())
    assert result.exit_code == 0, result.output
    spec = json.loads(records()[0].read_text())["spec"]
    assert spec["method"]["options"]["density"] == 0.5
    assert spec["dataset"]["options"]["ratio"] == 0.2
    assert spec["model"]["options"]["hidden"] == [8]
    assert (spec["training"]["lr"], spec["training"]["epochs"]) == (0.01, 1)


def test_a_record_can_be_run_again_from_its_file(debiasbench: Cli) -> None:
    debiasbench(*RUN, "--seed", 3)
    (path,) = records()
    result = debiasbench("run", "--spec", path, "--results", "elsewhere")
    assert result.exit_code == 0, result.output
    assert [p.name for p in records("elsewhere")] == [path.name]
    first, again = (from_json(p.read_text()) for p in (path, *records("elsewhere")))
    assert first.outcomes["last"].test == again.outcomes["last"].test


def test_a_spec_alone_is_run_as_its_record_was(debiasbench: Cli) -> None:
    debiasbench(*RUN, "--seed", 3)
    (path,) = records()
    write_specs(Path("specs.json"), [read(path).spec])
    Path("spec.json").write_text(json.dumps(json.loads(path.read_text())["spec"]))
    for file in ("specs.json", "spec.json"):
        result = debiasbench("run", "--spec", file, "--results", f"from-{file}")
        assert result.exit_code == 0, result.output
        assert [p.name for p in records(f"from-{file}")] == [path.name]


def test_a_record_of_a_method_that_is_not_installed_names_its_package(debiasbench: Cli) -> None:
    words = ("run", "--method", "theirs", "--dataset", "toy", "--model", "mlp", "--quiet")
    assert debiasbench(*words, extra=(offering(theirs=ERM),)).exit_code == 0
    (path,) = records()
    message = only(debiasbench("run", "--spec", path, "--results", "again"), 2)
    assert message.startswith("Unknown method 'theirs'")
    assert message.endswith(f"{path.name} was made with acme 1.0: install it")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not valid JSON"),
        ("{}", "is not a file of specs: 0.dataset: field required"),
        ("[]", "holds 0 specs, and --spec runs one: give a file of one spec"),
        ('{"seed": NaN}', "is not valid JSON (it holds NaN"),
    ],
)
def test_a_file_without_a_spec_is_refused(debiasbench: Cli, text: str, reason: str) -> None:
    Path("spec.json").write_text(text)
    assert reason in only(debiasbench("run", "--spec", "spec.json"), 9)


def test_a_spec_that_another_process_is_running_ends_with_its_exit_code(debiasbench: Cli) -> None:
    debiasbench(*RUN)
    (path,) = records()
    spec = from_json(path.read_text()).spec
    path.unlink()
    with Store(Path("results")).claim(spec):
        assert "is being run by another process" in only(debiasbench(*RUN), 8)


def test_on_a_terminal_each_stage_has_a_bar_that_counts_its_steps() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, no_color=True, width=80)
    with Bar(console=console) as bar:
        for stage in ("identify", "train"):
            bar.start(stage, 3)
            for _ in range(3):
                bar.advance()
            bar.finish()
    shown = screen.getvalue()
    assert "identify" in shown
    assert "train" in shown
    assert "3/3 steps" in shown


def test_a_sparsity_without_a_value_is_explained(debiasbench: Cli) -> None:
    result = debiasbench(*RUN, "--sparse", "rigl:density")
    assert result.exit_code == 2
    assert "'density' is not OPTION=VALUE. Write it as in rigl:density=0.05" in result.stderr


def test_any_method_can_be_made_sparse_and_the_leaderboard_says_so(debiasbench: Cli) -> None:
    words = ("run", "--method", "groupdro", "--dataset", "toy", "--model", "mlp")
    sparse = (*words, "--sparse", 'rigl:density=0.25,every=10%,exclude=["*.1.weight"]')
    result = debiasbench(*sparse)
    assert result.exit_code == 0, result.output
    assert "groupdro on toy with mlp, sparse by rigl, seed 0" in result.stdout
    (path,) = Path("results").glob("toy-groupdro-rigl-0-*.json")
    record = read(path)
    assert record.spec.sparse is not None
    assert record.spec.sparse.options["every"] == "10%"
    assert record.provenance.plugins["sparse"].startswith("debiasbench ")
    assert record.cost is not None
    assert 0.25 < record.cost.density < 1  # the excluded layer stays dense
    assert "Already done" in debiasbench(*sparse).stdout
    debiasbench(*words)
    table = debiasbench("leaderboard", "results").stdout
    assert "| groupdro + rigl " in table
    assert "| groupdro " in table


def test_a_method_that_is_sparse_by_itself_takes_no_second_sparsity(debiasbench: Cli) -> None:
    words = (
        "run",
        "--method",
        "rest",
        "--dataset",
        "toy",
        "--sparse",
        "set:density=0.2",
        "--quiet",
    )
    assert "Two components make" in only(debiasbench(*words, "--quiet"), 2)
    assert not list(Path("results").glob("*.json"))

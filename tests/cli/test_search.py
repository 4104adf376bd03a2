"""`debiasbench search`: trials, a winner, runs with other seeds; and what it refuses before."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from debiasbench import Method, log, option
from debiasbench.records import search as searches
from debiasbench.records.search import Search
from tests import warm
from tests.cli.calls import only, records
from tests.conftest import offering
from tests.failing import Diverges, Raises

Cli = Callable[..., Result]

FAST = ("--dataset", "toy", "--model", "mlp", "--epochs", 1, "--device", "cpu")


def search(debiasbench: Cli, *words: object, extra: tuple[object, ...] = ()) -> Result:
    return debiasbench("search", *words, *FAST, "--quiet", extra=extra)


def found(folder: str = "results") -> dict[str, Search]:
    """The searches of a folder, by method."""
    files = sorted(Path(folder, "search").glob("*.search.json"))
    return {one.method: one for one in map(searches.read, files)}


def trials(folder: str = "results") -> list[Path]:
    return sorted(Path(folder, "search").glob("*.trial.json"))


def test_trials_are_made_then_a_winner_is_chosen_then_it_is_run_with_other_seeds(
    debiasbench: Cli,
) -> None:
    result = search(debiasbench, "erm", "upweight", "--trials", 3, "--seeds", "0-1")
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    assert [line.split("  ")[:2] for line in lines[:6]] == [
        [f"{n}/6", f"{method} trial={k}"]
        for n, (method, k) in enumerate([(m, k) for m in ("erm", "upweight") for k in range(3)], 1)
    ]
    assert not any("%" in line for line in lines[:9])  # no accuracy of a trial
    assert lines[6] == "6 runs: 6 trained, 0 already done"
    assert lines[7].startswith("erm: trial ")
    assert " is the best of 3 trials under val_unbiased (train.lr=" in lines[7]
    assert [line.split("  ")[:2] for line in lines[9:13]] == [
        [f"{n}/4", f"{method} tuned seed={seed}"]
        for n, (method, seed) in enumerate([(m, s) for m in ("erm", "upweight") for s in (0, 1)], 1)
    ]
    assert "erm (tuned, n=3)" in result.stdout
    assert len(trials()) == 6
    assert len(records()) == 4
    assert set(found()) == {"erm", "upweight"}
    assert debiasbench("verify").stdout.endswith("4 records: 4 verified; 2 searches: 2 verified\n")


def test_the_second_call_trains_nothing_and_prints_the_same(debiasbench: Cli) -> None:
    first = search(debiasbench, "erm", "--trials", 3, "--seeds", "0-1")
    files = {path: path.stat().st_mtime_ns for path in Path("results").rglob("*.json")}
    again = search(debiasbench, "erm", "--trials", 3, "--seeds", "0-1")
    assert again.stdout == first.stdout
    assert "3 runs: 0 trained, 3 already done" in again.stderr
    assert "2 runs: 0 trained, 2 already done" in again.stderr
    assert {p: p.stat().st_mtime_ns for p in Path("results").rglob("*.json")} == files


def test_more_trials_use_the_trials_that_there_are(debiasbench: Cli) -> None:
    search(debiasbench, "erm", "--trials", 3, "--seeds", 0)
    result = search(debiasbench, "erm", "--trials", 5, "--seeds", 0)
    assert "5 runs: 2 trained, 3 already done" in result.stderr
    assert len(trials()) == 5


def test_several_trials_at_once_find_the_same(debiasbench: Cli) -> None:
    outcomes = []
    for name, words in (("a", ()), ("b", ("--together", 2))):
        result = search(
            debiasbench, "erm", "--trials", 4, "--seeds", "0-1", "--results", name, *words
        )
        assert result.exit_code == 0, result.output
        predictions = sorted(Path(name).rglob("*.safetensors"))
        outcomes.append([(p.name, p.read_bytes()) for p in predictions if ".stages" not in str(p)])
    assert outcomes[0] == outcomes[1]
    assert found("a")["erm"].winner == found("b")["erm"].winner


def test_a_method_without_a_space_tunes_training_alone(debiasbench: Cli) -> None:
    result = debiasbench("search", "erm", *FAST, "--dry-run", "--trials", 3)
    assert result.stdout.splitlines() == [
        "erm trial=0  train.lr=0.05 train.weight_decay=0.0",
        "erm trial=1  train.lr=0.006243 train.weight_decay=0.001",
        "erm trial=2  train.lr=0.04101 train.weight_decay=1e-05",
    ]
    assert not Path("results").exists()


def test_what_set_gives_is_not_searched(debiasbench: Cli) -> None:
    words = ("--set", "train.lr=0.1", "--set", "upweight.weight=20")
    result = debiasbench("search", "erm", "upweight", *FAST, *words, "--dry-run")
    lines = result.stdout.splitlines()
    assert len(lines) == 32
    assert all("lr" not in line and " weight=" not in line for line in lines)


@dataclass(frozen=True)
class Wide(Method):
    """A method whose space leaves the bounds of its option."""

    density: float = option(0.1, "density", gt=0, le=1, search=log(0.1, 10))

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model(), name="train")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("erm", "--trials", 0), "trials = 0: must be a whole number from 2 to 100,000"),
        (("erm", "--trials", 1), "trials = 1: must be a whole number from 2"),
        (("erm", "--seeds", "0,1000"), "Seed 1000 is that of the trials"),
        (("erm", "--select", "best"), "Unknown selection rule 'best'"),
        (("erm", "--metric", "best"), "Unknown metric 'best'"),
        (("nope",), "Unknown method 'nope'"),
        (("erm", "--set", "train.lr=0.1,0.2"), "--set train.lr has 2 values: a search draws"),
        (("erm", "--batch-size", "auto"), "train.micro_batch = auto depends on the machine"),
        (("wide",), "search=log(0.1, 10) leaves the option's bounds: density=10"),
        (("rest", "--set", "rest.density=3"), "density='3': input should be less than or equal"),
    ],
)
def test_what_cannot_be_searched_is_one_line_before_anything_is_trained(
    words: tuple[object, ...], complaint: str, debiasbench: Cli
) -> None:
    result = search(debiasbench, *words, extra=(offering(wide=Wide),))
    assert complaint in only(result, result.exit_code)
    assert result.exit_code in {2, 3}
    assert not Path("results").exists()


def test_a_search_of_which_all_trials_diverge_has_no_winner(debiasbench: Cli) -> None:
    extra = (offering(diverges=Diverges),)
    result = search(debiasbench, "diverges", "erm", "--trials", 2, "--seeds", 0, extra=extra)
    assert result.exit_code == 6
    assert result.stderr.count("cannot be chosen: The loss of stage") == 2
    assert "Error: diverges: none of 2 trials has a result" in result.stderr
    assert "erm (tuned, n=2)" in result.stdout  # the other search goes on
    again = search(debiasbench, "diverges", "erm", "--trials", 2, "--seeds", 0, extra=extra)
    assert "4 runs: 0 trained, 4 already done" in again.stderr
    assert again.exit_code == 6


def test_a_trial_with_an_error_leaves_the_search_without_a_winner(debiasbench: Cli) -> None:
    extra = (offering(raises=Raises),)
    result = search(debiasbench, "raises", "--trials", 2, "--seeds", 0, extra=extra)
    assert result.exit_code == 3
    assert "Error: raises: 2 trials of 2 are missing (0, 1), so there is no winner" in result.stderr
    assert not records()


# --- suites -------------------------------------------------------------------------------------

SUITE = """
name = "tuned"
description = "a search"
source = "a test"

[search]
trials = 3

[base]
dataset = "toy"
model = "mlp"
"train.epochs" = 1

[grid]
method = ["erm", "upweight"]
seed = [0, 1]
"""


def sweep(debiasbench: Cli, *words: object, text: str = SUITE) -> Result:
    Path("tuned.toml").write_text(text)
    return debiasbench("sweep", "tuned.toml", "--device", "cpu", "--quiet", *words)


def test_a_suite_searches_and_reports_the_seeds_of_its_grid(debiasbench: Cli) -> None:
    result = sweep(debiasbench)
    assert result.exit_code == 0, result.output
    assert "6 runs: 6 trained, 0 already done" in result.stderr
    assert "4 runs: 4 trained, 0 already done" in result.stderr
    assert "method=erm: trial" in result.stderr
    assert len(records()) == 4
    assert {json.loads(p.read_text())["spec"]["seed"] for p in records()} == {0, 1}
    again = sweep(debiasbench)
    assert "6 runs: 0 trained, 6 already done" in again.stderr


def test_a_suite_and_the_command_search_the_same(debiasbench: Cli) -> None:
    sweep(debiasbench)
    result = search(debiasbench, "erm", "upweight", "--trials", 3, "--seeds", "0-1")
    assert "6 runs: 0 trained, 6 already done" in result.stderr
    assert "4 runs: 0 trained, 4 already done" in result.stderr


def test_a_sweep_of_searches_begins_at_most_as_many_runs_as_it_may(debiasbench: Cli) -> None:
    assert "6 runs: 4 trained, 0 already done, 2 left" in sweep(debiasbench, "--limit", 4).stderr
    assert len(trials()) == 4
    listed = sweep(debiasbench, "--dry-run").stdout.splitlines()
    assert listed == ["5/6  method=upweight trial=1", "6/6  method=upweight trial=2"]
    assert sweep(debiasbench, "--limit", 3).exit_code == 0
    assert (len(trials()), len(records())) == (6, 1)
    assert len(sweep(debiasbench, "--dry-run").stdout.splitlines()) == 3


def test_a_limit_counts_for_a_list_and_a_plan_of_searches_too(debiasbench: Cli) -> None:
    assert len(sweep(debiasbench, "--dry-run", "--limit", 2).stdout.splitlines()) == 2
    assert "2 runs will take about" in sweep(debiasbench, "--plan", "--limit", 2).stdout


def test_a_dry_run_of_searches_on_a_cluster_prints_the_script(debiasbench: Cli) -> None:
    words = ("--on", "slurm", "--workers", 2, "--dry-run", "--", "--partition=gpu")
    shown = sweep(debiasbench, *words)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("#!/bin/bash\n# 2 workers of debiasbench ")
    assert "\n#SBATCH --partition=gpu\n" in shown.stdout


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("trials = 0", "trials = 0: must be a whole number from 2"),
        ('trials = "16"', "trials = '16': must be a whole number"),
        ("trails = 16", "search has no key 'trails'. Did you mean 'trials'?"),
        ('trials = 3\nselect = "best"', "Unknown selection rule 'best'"),
        ("trials = 3\nselect = 3", "select = 3: must be the name of a selection rule"),
    ],
)
def test_a_table_search_that_says_nothing_valid_is_one_line(
    line: str, complaint: str, debiasbench: Cli
) -> None:
    result = sweep(debiasbench, text=SUITE.replace("trials = 3", line))
    assert complaint in only(result, 2)
    assert not Path("results").exists()


def test_a_suite_with_the_seed_of_the_trials_is_refused(debiasbench: Cli) -> None:
    result = sweep(debiasbench, text=SUITE.replace("[0, 1]", "[0, 1000]"))
    assert "tuned.toml: Seed 1000 is that of the trials" in only(result, 2)


def test_suite_show_says_that_a_suite_searches(debiasbench: Cli) -> None:
    Path("tuned.toml").write_text(SUITE)
    result = debiasbench("suite", "show", "tuned.toml", "--no-forecast", "--device", "cpu")
    assert "Searches: 3 trials for each of these runs without its seed" in result.stdout


# --- planned ---


def plan(debiasbench: Cli, *words: object) -> str:
    result = search(debiasbench, *words, "--plan")
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_plan_has_the_trials_and_the_runs_of_winners_that_are_left(debiasbench: Cli) -> None:
    words = ("erm", "upweight", "--trials", 3, "--seeds", "0-1")
    told = plan(debiasbench, *words)
    assert told.startswith("10 runs, 0 of them done\n")
    assert [line.split()[:2] for line in told.splitlines()[4:6]] == [
        ["5", "erm"],
        ["5", "upweight"],
    ]
    assert told.count("a rehearsal") == 2
    assert "10 runs will take about" in told
    assert not Path("results").exists()
    search(debiasbench, "erm", "--trials", 3, "--seeds", 0)
    told = plan(debiasbench, *words)
    assert told.startswith("10 runs, 4 of them done\n")
    assert [line.split()[:2] for line in told.splitlines()[4:6]] == [
        ["1", "erm"],
        ["5", "upweight"],
    ]
    assert "4 records" in told  # three trials and a run
    search(debiasbench, *words)
    assert plan(debiasbench, *words) == "10 runs, all done\n"
    assert plan(debiasbench, *words, "--overwrite", "always").startswith("10 runs, 0 of them")


def test_a_suite_that_searches_can_be_planned(debiasbench: Cli) -> None:
    result = sweep(debiasbench, "--plan")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("10 runs, 0 of them done\n")
    assert not Path("results").exists()


def test_what_another_sampler_draws_cannot_be_planned(debiasbench: Cli) -> None:
    result = search(debiasbench, "erm", "--sampler", "optuna:random", "--plan")
    assert result.exit_code == 2
    assert "each trial after those before it: no --plan" in result.output


# --- killed and continued -----------------------------------------------------------------------

COMMAND = ("search", "erm", "--model", "mlp", "--epochs", "2", "--trials", "4", "--seeds", "0-1")


def start(folder: Path, *more: str) -> warm.Process:
    words = [*COMMAND, "--device", "cpu", "--quiet", *more, "--results", str(folder)]
    return warm.Process(warm.COMMAND, *words, environment={**os.environ, "OMP_NUM_THREADS": "1"})


def content(folder: Path) -> dict[str, Any]:
    """Predictions, winners and records of a folder, without what the clock decides."""
    files: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        if name.startswith("."):
            continue
        if path.suffix == ".safetensors":
            files[name] = path.read_bytes()
        elif path.suffix == ".json":
            data = json.loads(path.read_text())
            keys = ("id", "spec", "outcomes", "predictions", "curves", "winner", "trials", "flops")
            files[name] = {key: data.get(key) for key in keys}
    return files


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the content of a search that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    with start(folder) as process:
        assert process.wait() == 0, process.stderr
    return content(folder)


@pytest.mark.slow
def test_a_search_that_is_killed_and_continued_has_the_same_winner_and_files(
    whole: dict[str, Any], tmp_path: Path
) -> None:
    for at in ("search/*.trial.json", "*.json"):
        with start(tmp_path) as process:
            while process.is_alive() and len(list(tmp_path.glob(at))) < 1:
                time.sleep(0.05)
    with start(tmp_path) as process:
        assert process.wait() == 0, process.stderr
    assert content(tmp_path) == whole


@pytest.mark.slow
def test_a_search_in_two_processes_has_the_same_winner_and_files(
    whole: dict[str, Any], tmp_path: Path
) -> None:
    with start(tmp_path, "--jobs", "2") as process:
        assert process.wait() == 0, process.stderr
    assert content(tmp_path) == whole
    assert sum(name.endswith(".trial.json") for name in whole) == 4

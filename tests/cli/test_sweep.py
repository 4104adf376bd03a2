"""`debiasbench sweep`: every run of a suite once, and what becomes of each."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from debiasbench import Dataset, Method, Task, hookimpl, option
from debiasbench.common.errors import DataError, PluginError
from debiasbench.records.store import Store, read_all
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.suites import read
from tests.conftest import offering
from tests.failing import Diverges, Raises
from tests.suites import BASE, SEEDS, records, write

Cli = Callable[..., Result]


def test_a_sweep_trains_every_run_and_the_second_none(debiasbench: Cli) -> None:
    file = write(BASE + SEEDS)
    first = debiasbench("sweep", file, "--quiet")
    assert (first.exit_code, first.stderr) == (0, "")
    lines = first.stdout.splitlines()
    for n, line in enumerate(lines[:3], 1):
        assert re.fullmatch(rf"{n}/3  seed={n}  \d+ s  unbiased \d+\.\d %", line)
    assert lines[3:] == ["3 runs: 3 trained, 0 already done"]
    before = {path: path.stat().st_mtime_ns for path in records()}
    assert len(before) == 3
    second = debiasbench("sweep", file)
    assert (second.exit_code, second.stdout) == (0, "3 runs: 0 trained, 3 already done\n")
    assert {path: path.stat().st_mtime_ns for path in records()} == before
    assert "3 trained" in debiasbench("sweep", file, "--overwrite", "always").stdout


def test_a_sweep_reports_the_accuracy_that_the_record_holds(debiasbench: Cli) -> None:
    line = debiasbench("sweep", write(BASE)).stdout.splitlines()[0]
    ((_, record),), _ = read_all([Path("results")])
    value = record.outcomes["val_unbiased"].test.metrics["unbiased"]
    assert line.startswith("1/1  mine  ")
    assert line.endswith(f"unbiased {100 * value:.1f} %")


@pytest.mark.slow
def test_a_sweep_that_is_all_done_imports_no_torch(debiasbench: Cli, tmp_path: Path) -> None:
    file = write(BASE.replace("toy", "digits") + 'model = "mlp"\n')
    assert debiasbench("sweep", file).exit_code == 0
    code = (
        "import sys\nfrom debiasbench.cli import main\n"
        f"try:\n    main(['sweep', {file!r}])\n"
        "except SystemExit:\n    print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 run: 0 trained, 1 already done\nFalse\n"


def test_a_run_that_fails_is_reported_and_the_others_go_on(debiasbench: Cli) -> None:
    blocks = '[[runs]]\nmethod = "diverges"\n[[runs]]\nmethod = "raises"\n[[runs]]\n'
    file = write(BASE + blocks)
    extra = (offering(diverges=Diverges, raises=Raises),)
    result = debiasbench("sweep", file, "--quiet", extra=extra)
    assert result.exit_code == 6  # of the first
    first, second = result.stderr.splitlines()
    assert first.startswith("1/3  method=diverges  failed: The loss of stage 'second' became NaN")
    assert second.startswith("2/3  method=raises  failed: method 'raises' of acme 1.0 raised Index")
    third, summary = result.stdout.splitlines()
    assert third.startswith("3/3  mine  ")
    assert summary == "3 runs: 1 trained, 0 already done, 2 failed"
    stopped = debiasbench("sweep", file, "--quiet", "--stop-at-first-error", extra=extra)
    assert (stopped.exit_code, len(stopped.stderr.splitlines())) == (6, 1)
    assert stopped.stdout == "3 runs: 0 trained, 1 already done, 1 failed, 1 left\n"


@dataclass(frozen=True)
class Fragile(Method):
    """Fails for seed 2 while a file exists."""

    def fit(self, lab: Any) -> Any:
        if Path("broken").exists() and lab.seed == 2:
            raise DataError("broken is there")
        return lab.train(lab.model(), name="train")


def test_a_run_that_failed_is_taken_up_by_the_next_sweep(debiasbench: Cli) -> None:
    file = write(BASE.replace("erm", "fragile") + SEEDS)
    extra = (offering(fragile=Fragile),)
    Path("broken").touch()
    failed = debiasbench("sweep", file, "--quiet", extra=extra)
    assert (failed.exit_code, len(records())) == (4, 2)
    assert failed.stderr == "2/3  seed=2  failed: broken is there\n"
    Path("broken").unlink()
    again = debiasbench("sweep", file, extra=extra)
    assert again.exit_code == 0
    assert again.stdout.splitlines()[-1] == "3 runs: 1 trained, 2 already done"
    assert len(records()) == 3


def test_a_run_that_another_process_has_is_passed_over(debiasbench: Cli, plugins: Plugins) -> None:
    file = write(BASE + SEEDS)
    with Store(Path("results")).claim(read(file).specs(plugins)[1]):
        result = debiasbench("sweep", file)
    assert result.exit_code == 0, result.stderr
    said = result.stdout.splitlines()
    assert "2/3  seed=2  is being trained by another process" in said
    assert said[-1] == "3 runs: 2 trained, 0 already done, 1 running in other processes"
    assert "1 trained, 2 already done" in debiasbench("sweep", file).stdout


@dataclass(frozen=True)
class Impatient(Method):
    """Is interrupted for seed 2 while a file exists."""

    def fit(self, lab: Any) -> Any:
        if Path("waiting").exists() and lab.seed == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return lab.train(lab.model(), name="train")


def test_an_interrupted_sweep_keeps_what_is_done_and_says_so(debiasbench: Cli) -> None:
    file = write(BASE.replace("erm", "impatient") + SEEDS)
    extra = (offering(impatient=Impatient),)
    Path("waiting").touch()
    result = debiasbench("sweep", file, "--quiet", extra=extra)
    assert result.exit_code == 75
    assert result.stderr == (
        "Interrupted. The records of finished runs are stored, and the same command continues the "
        "others. "
        "3 runs: 1 trained, 0 already done, 2 left\n"
    )
    assert len(records()) == 1
    Path("waiting").unlink()
    again = debiasbench("sweep", file, extra=extra)
    assert again.stdout.splitlines()[-1] == "3 runs: 2 trained, 1 already done"


def test_a_failed_run_shows_its_traceback_if_asked(debiasbench: Cli) -> None:
    file = write(BASE.replace("erm", "raises"))
    result = debiasbench("sweep", file, "--debug", extra=(offering(raises=Raises),))
    assert result.exit_code == 3
    assert "Traceback (most recent call last)" in result.stderr
    assert "IndexError" in result.stderr


def test_a_dry_run_names_what_is_left_and_trains_nothing(debiasbench: Cli) -> None:
    file = write(BASE + SEEDS)
    debiasbench("sweep", file, "--limit", 1)
    result = debiasbench("sweep", file, "--dry-run")
    assert result.stdout == (
        "2/3  seed=2\n3/3  seed=3\n3 runs: 0 trained, 1 already done, 2 left\n"
    )
    assert len(records()) == 1


def test_a_limit_counts_runs_that_are_begun_and_not_those_that_are_done(debiasbench: Cli) -> None:
    file = write(BASE + SEEDS)
    summaries = [debiasbench("sweep", file, "--limit", 1).stdout.splitlines()[-1] for _ in range(3)]
    assert summaries == [
        "3 runs: 1 trained, 0 already done, 2 left",
        "3 runs: 1 trained, 1 already done, 1 left",
        "3 runs: 1 trained, 2 already done",
    ]


def test_a_folder_that_cannot_be_written_ends_the_sweep_at_once(debiasbench: Cli) -> None:
    Path("file").touch()
    result = debiasbench("sweep", write(BASE + SEEDS), "--results", "file/results")
    assert result.exit_code == 7
    assert len(result.stderr.splitlines()) == 1
    assert "Choose another folder with --results" in result.stderr


@dataclass(frozen=True)
class Missing(Dataset):
    """A data set without its files; counts how often it is loaded."""

    model = "mlp"
    ratio: float = option(0.1)

    def load(self, root: Path) -> Task:
        with Path("loads").open("a") as file:
            file.write(f"{self.ratio}\n")
        raise DataError("missing.bin is missing")


class MissingPlugin:
    """Registers the data set without files."""

    @hookimpl
    def debiasbench_register_datasets(self, register: Callable[..., None]) -> None:
        register("missing", Missing)


MISSING = '[[runs]]\n[[runs]]\ndataset = "missing"\ngrid."dataset.ratio" = [0.1, 0.2]\n'


def test_a_data_set_that_cannot_be_loaded_is_reported_once_before_the_first_run(
    debiasbench: Cli,
) -> None:
    file = write(BASE + SEEDS + MISSING)
    result = debiasbench("sweep", file, "--quiet", extra=(MissingPlugin(),))
    assert result.exit_code == 4
    assert result.stderr == "Data set missing, 6 runs  failed: missing.bin is missing\n"
    assert len(result.stdout.splitlines()) == 4
    assert result.stdout.splitlines()[-1] == "9 runs: 3 trained, 0 already done, 6 failed"
    assert sorted(Path("loads").read_text().split()) == ["0.1", "0.2"]
    stopped = debiasbench("sweep", file, "--stop-at-first-error", extra=(MissingPlugin(),))
    assert stopped.exit_code == 4
    assert stopped.stdout == "9 runs: 0 trained, 3 already done, 6 failed\n"


def test_a_limit_loads_only_the_data_sets_of_the_runs_that_it_allows(debiasbench: Cli) -> None:
    file = write(BASE + SEEDS + MISSING)
    result = debiasbench("sweep", file, "--quiet", "--limit", 3, extra=(MissingPlugin(),))
    assert (result.exit_code, result.stderr) == (0, "")
    assert not Path("loads").exists()


def test_a_limit_passes_over_runs_that_another_process_has(
    debiasbench: Cli, plugins: Plugins
) -> None:
    file = write(BASE + SEEDS)
    with Store(Path("results")).claim(read(file).specs(plugins)[0]):
        result = debiasbench("sweep", file, "--quiet", "--limit", 1)
    assert result.stdout.splitlines()[-1] == (
        "3 runs: 1 trained, 0 already done, 1 running in other processes, 1 left"
    )


def test_runs_that_are_trained_at_once_have_a_line_and_a_record_each(debiasbench: Cli) -> None:
    file = write(BASE + SEEDS)
    done = debiasbench("sweep", file, "--quiet", "--together", "2")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for n, line in enumerate(lines[:3], 1):
        assert re.fullmatch(rf"{n}/3  seed={n}  \d+ s  unbiased \d+\.\d %", line)
    assert lines[3:] == ["3 runs: 3 trained, 0 already done"]
    together = [
        record.cost.stages[0]["together"]
        for record in (found for _, found in read_all([Path("results")])[0])
        if record.cost is not None
    ]
    assert sorted(together) == [1, 2, 2]
    assert "3 already done" in debiasbench("sweep", file, "--together", "2").stdout


def test_auto_is_one_run_at_a_time_on_a_cpu(debiasbench: Cli) -> None:
    done = debiasbench("sweep", write(BASE + SEEDS), "--together", "auto")
    assert done.exit_code == 0
    found, _ = read_all([Path("results")])
    costs = [record.cost for _, record in found if record.cost is not None]
    assert [cost.stages[0]["together"] for cost in costs] == [1, 1, 1]


@pytest.mark.parametrize("together", ["auto", "2"])
def test_a_limit_counts_the_runs_that_are_begun_at_once(debiasbench: Cli, together: str) -> None:
    file = write(BASE + SEEDS)
    done = debiasbench("sweep", file, "--together", together, "--limit", "2")
    assert done.stdout.splitlines()[-1] == "3 runs: 2 trained, 0 already done, 1 left"
    assert "1 trained, 2 already done" in debiasbench("sweep", file, "--together", together).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--together", "0"), "0 is not in the range x>=1"),
        (("--together", "many"), "'many' is not a valid integer"),
        (("--together", "2", "--jobs", "2"), "use one of them"),
    ],
    ids=str,
)
def test_a_number_of_runs_that_makes_no_sense_is_refused(
    debiasbench: Cli, words: tuple[str, ...], message: str
) -> None:
    refused = debiasbench("sweep", write(BASE), *words)
    assert refused.exit_code == 2
    assert message in refused.stderr


def test_failed_runs_among_those_at_once_are_reported_and_the_others_are_stored(
    debiasbench: Cli,
) -> None:
    text = '[base]\ndataset = "toy"\ntrain.epochs = 1\n[grid]\nmethod = ["erm", "raises", "rest"]\n'
    done = debiasbench("sweep", write(text), "--together", "3", extra=(offering(raises=Raises),))
    assert done.exit_code == PluginError.exit_code
    assert "3 runs: 2 trained, 0 already done, 1 failed" in done.stdout
    assert "off by one" in done.stderr
    assert len(records()) == 2

"""`--on slurm`: what is submitted, what a person reads meanwhile, and what the array leaves."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.records.store import Store
from debiasbench.runs import on_slurm
from debiasbench.runs.job_folder import JobFolder, Line, Outcomes
from debiasbench.runs.jobs import read_jobs
from tests import fake_slurm
from tests.cli.calls import only
from tests.fake_slurm import wait_until
from tests.records.test_record import make_record
from tests.records.training import trained
from tests.suites import BASE, SEEDS, write

Cli = Callable[..., Result]
SLURM = ("--on", "slurm", "--workers", 2)


@pytest.fixture
def state(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The state of a Slurm whose tasks are pending."""
    folder = tmp_path_factory.mktemp("slurm") / "commands"
    for name, value in fake_slurm.install(folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(on_slurm, "ASK", 0.05)
    monkeypatch.setattr(on_slurm, "POLL", 0.01)
    (folder / "state" / "pending").write_text("Priority")
    yield folder / "state"
    fake_slurm.end_all(folder)


def folder() -> JobFolder:
    (path,) = Path("results/.jobs").iterdir()
    return JobFolder(path.absolute())


def submitted(state: Path) -> int:
    return len(list(state.glob("job-*")))


def test_a_dry_run_prints_the_script_and_submits_nothing(debiasbench: Cli, state: Path) -> None:
    words = ("--", "--partition=gpu", "--time", "4:00:00")
    done = debiasbench("sweep", write(BASE + SEEDS), *SLURM, "--dry-run", *words)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("#!/bin/bash\n# 2 workers of debiasbench ")
    assert "\n#SBATCH --partition=gpu\n#SBATCH --time 4:00:00\n" in done.stdout
    assert done.stdout.endswith('exit "$code"\n')
    compared = debiasbench(
        "compare", "erm", "--dataset", "toy", *SLURM, "--dry-run", "--", "--partition=gpu"
    )
    assert "\n#SBATCH --partition=gpu\n" in compared.stdout
    assert submitted(state) == 0
    assert not Path("results").exists()


def test_a_dry_run_here_lists_the_runs_of_a_comparison(debiasbench: Cli) -> None:
    done = debiasbench("compare", "erm", "--dataset", "toy", "--seeds", "0-1", "--dry-run")
    assert (done.exit_code, done.stdout) == (0, "1/2  erm seed=0\n2/2  erm seed=1\n")


def test_without_waiting_the_command_says_how_to_go_on(debiasbench: Cli, state: Path) -> None:
    done = debiasbench("sweep", write(BASE + SEEDS), *SLURM, "--no-wait")
    assert done.exit_code == 0, done.output
    logs = folder().logs
    assert done.stderr.splitlines() == [
        f"Array 7 of Slurm has 3 runs; logs are in {logs}",
        "`scancel 7` ends it; without --no-wait, its runs are shown",
    ]
    assert done.stdout == "3 runs: 0 trained, 0 already done, 3 left\n"
    jobs = read_jobs(folder().jobs)
    assert (len(jobs.specs), jobs.workers, jobs.processes, jobs.together) == (3, 2, 1, 1)
    assert (state / "script").read_text() == folder().script.read_text()
    again = debiasbench("sweep", write(BASE + SEEDS), *SLURM, "--no-wait")
    assert "Array 7 of Slurm has these runs already, so none is submitted" in again.stderr
    assert submitted(state) == 1


def test_no_task_is_submitted_that_would_have_nothing_to_do(debiasbench: Cli, state: Path) -> None:
    words = ("--on", "slurm", "--workers", 8, "--jobs", 2, "--no-wait")
    debiasbench("sweep", write(BASE + SEEDS), *words)
    jobs = read_jobs(folder().jobs)
    assert (jobs.workers, jobs.processes) == (2, 2)
    assert "--array=0-1\n" in (state / "script").read_text()


def test_outcomes_are_shown_as_they_come_and_counted(debiasbench: Cli, state: Path) -> None:
    file = write(BASE + SEEDS)

    def work() -> None:
        wait_until(lambda: submitted(state))
        jobs = read_jobs(folder().jobs)
        told = Outcomes(folder(), 0, 0)
        for title in ("seed=2", "seed=1"):
            told.tell(Line(title, "begun"))
            path = trained(Path("results"), jobs.specs[title])
            told.tell(Line(title, "trained", file=path.name))
        told.tell(Line("seed=3", "failed", problem="the loss\nis NaN", exit_code=6))
        told.close()

    working = threading.Thread(target=work)
    working.start()
    done = debiasbench("sweep", file, *SLURM)
    working.join()
    assert done.exit_code == 6
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"2/3  seed=2  \d+ s  unbiased \d+\.\d %", lines[0])
    assert lines[1].startswith("1/3  seed=1  ")
    assert lines[2:] == ["3 runs: 2 trained, 0 already done, 1 failed"]
    assert "3/3  seed=3  failed: the loss is NaN\n" in done.stderr


def test_pending_tasks_are_said_once_with_the_reason(debiasbench: Cli, state: Path) -> None:
    def end() -> None:
        wait_until(lambda: submitted(state))
        threading.Event().wait(1)
        (state / "broken").touch()
        threading.Event().wait(0.5)
        (state / "broken").unlink()
        (state / "pending").unlink()

    ending = threading.Thread(target=end)
    ending.start()
    done = debiasbench("sweep", write(BASE + SEEDS), *SLURM)
    ending.join()
    waiting = "Waiting for Slurm: 1 task pending (Priority)"
    broken = "Slurm does not answer: slurm_load_jobs error: Unable to contact slurm controller. "
    assert 1 <= done.stderr.count(waiting) <= 2  # once more after the answer that did not come
    assert done.stderr.count(broken) == 1
    assert done.exit_code == 1
    assert (
        "Error: Array 7 of Slurm is over, and 3 runs of it have no outcome. The same command "
        "submits what is left; logs are in "
    ) in done.stderr


def test_the_last_words_of_an_array_are_shown(debiasbench: Cli, state: Path) -> None:
    def end() -> None:
        wait_until(lambda: submitted(state))
        (folder().logs / "7_0.log").write_text("hello\nmodule: not found: cuda\n\n")
        (state / "pending").unlink()

    ending = threading.Thread(target=end)
    ending.start()
    done = debiasbench("sweep", write(BASE), *SLURM)
    ending.join()
    assert "1 run of it has no outcome. 7_0.log ends with: module: not found: cuda." in done.stderr


def test_ctrl_c_leaves_the_array_and_the_same_command_shows_its_runs(
    debiasbench: Cli, state: Path
) -> None:
    file = write(BASE + SEEDS)

    def press() -> None:
        wait_until(lambda: submitted(state))
        os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    stopped = debiasbench("sweep", file, *SLURM)
    pressing.join()
    assert stopped.exit_code == 75
    assert (
        "Array 7 of Slurm goes on. The same command shows its runs; `scancel 7` ends it\n"
        in stopped.stderr
    )
    assert stopped.stderr.endswith("3 runs: 0 trained, 0 already done, 3 left\n")
    told = Outcomes(folder(), 0, 0)
    for title, spec in read_jobs(folder().jobs).specs.items():
        told.tell(Line(title, "trained", file=trained(Path("results"), spec).name))
    told.close()
    shown = debiasbench("sweep", file, *SLURM, "--overwrite", "always")
    assert "Array 7 of Slurm has these runs already, so none is submitted\n" in shown.stderr
    assert shown.stdout.endswith("3 runs: 3 trained, 0 already done\n")
    assert submitted(state) == 1


def test_when_the_array_is_gone_what_is_left_is_submitted(debiasbench: Cli, state: Path) -> None:
    file = write(BASE + SEEDS)
    debiasbench("sweep", file, *SLURM, "--no-wait")
    jobs = read_jobs(folder().jobs)
    trained(Path("results"), jobs.specs["seed=2"])
    told = Outcomes(folder(), 0, 0)
    told.tell(Line("seed=3", "failed", problem="no", exit_code=5))
    told.close()
    (state / "job-7").write_text("over")
    again = debiasbench("sweep", file, *SLURM, "--no-wait")
    assert "Array 8 of Slurm has 2 runs" in again.stderr
    assert list(read_jobs(folder().jobs).specs) == ["seed=1", "seed=3"]
    assert not folder().outcomes(0).exists()  # a failure of before is tried again


@pytest.mark.parametrize("overwrite", ["failed", "always"])
def test_the_jobs_say_which_records_are_replaced(
    debiasbench: Cli, state: Path, overwrite: str
) -> None:
    file = write(BASE + SEEDS)
    debiasbench("sweep", file, *SLURM, "--no-wait")
    specs = read_jobs(folder().jobs).specs
    good = trained(Path("results"), specs["seed=1"])
    Store(Path("results")).save(make_record(specs["seed=2"], failed=True), None)
    (state / "job-7").write_text("over")
    done = debiasbench("sweep", file, *SLURM, "--no-wait", "--overwrite", overwrite)
    assert done.exit_code == 0, done.output
    replaced = {"seed=2"} | ({"seed=1"} if overwrite == "always" else set())
    assert set(read_jobs(folder().jobs).replaces) == replaced
    assert good.exists()


def test_an_unknown_partition_is_one_line(debiasbench: Cli, state: Path) -> None:
    done = debiasbench("sweep", write(BASE), *SLURM, "--", "--partition=none")
    assert only(done, 2) == (
        "sbatch refused the array: invalid partition specified: none; Batch job submission "
        "failed: Invalid partition name specified"
    )


def test_a_machine_without_slurm_is_one_line(
    debiasbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "needs Slurm's command sbatch" in only(debiasbench("sweep", write(BASE), *SLURM), 2)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--on", "slurm"), "--on slurm needs --workers N"),
        ((*SLURM, "--together", "auto"), "--together auto measures here"),
        ((*SLURM, "--together", "2", "--jobs", "2"), "use one of them"),
        (("--workers", "2"), "--workers needs --on ray or --on slurm"),
        (("--no-wait",), "--no-wait needs --on slurm"),
        (("--on", "pbs"), "'pbs' is no place for runs"),
        ((*SLURM, "--", "--array=0-3"), "'--array=0-3' cannot be given to sbatch: --workers N"),
        ((*SLURM, "--", "gpu"), "'gpu' is no option for sbatch"),
        (("--", "--partition=gpu"), "unexpected extra argument"),
    ],
)
def test_words_that_do_not_fit_are_refused_before_anything_is_submitted(
    debiasbench: Cli, state: Path, words: tuple[str, ...], reason: str
) -> None:
    done = debiasbench("sweep", write(BASE), *words)
    assert done.exit_code == 2
    assert reason in " ".join(done.stderr.split())
    assert submitted(state) == 0


def test_the_precision_is_left_to_the_device_of_the_workers(debiasbench: Cli, state: Path) -> None:
    file = write(BASE)
    debiasbench("sweep", file, *SLURM, "--no-wait", "--device", "auto")
    (spec,) = read_jobs(folder().jobs).specs.values()
    assert spec.unresolved == ["train.precision"]
    resolved = type(spec)(**{**vars(spec), "training": {**spec.training, "precision": "bf16"}})
    path = trained(Path("results"), resolved)
    told = Outcomes(folder(), 0, 0)
    told.tell(Line("mine", "trained", file=path.name))
    told.close()
    (state / "job-7").write_text("over")
    again = debiasbench("sweep", file, *SLURM, "--device", "auto")
    assert again.stdout == "1 run: 0 trained, 1 already done\n"
    assert submitted(state) == 1
    assert Store(Path("results")).load(resolved) is not None

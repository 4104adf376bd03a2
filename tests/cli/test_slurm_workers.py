"""Workers of an array as processes: killed, stopped, queued again, with records equal to others."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from debiasbench.runs.job_folder import FINAL, JobFolder, Told
from debiasbench.training import stage_store
from tests import fake_slurm
from tests.fake_slurm import wait_until
from tests.worker_plugin import HEAD, Begin, command_line, equal_records, sweep_here

pytestmark = pytest.mark.slow


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The commands of a Slurm that executes tasks at once, and an empty working folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    folder = tmp_path / "commands"
    for name, value in fake_slurm.install(folder).items():
        monkeypatch.setenv(name, value)
    yield folder
    fake_slurm.end_all(folder)


@pytest.fixture
def debiasbench(commands: Path, tmp_path: Path) -> Begin:
    return command_line(tmp_path / "plugins")


def folder() -> JobFolder:
    (path,) = Path("results/.jobs").iterdir()
    return JobFolder(path.absolute())


def states(title: str) -> list[str]:
    return [line.state for line in Told(folder()).read() if line.title == title]


def records(place: str = "results") -> list[Path]:
    return sorted(Path(place).glob("*.json"))


def test_a_run_that_kills_its_process_fails_and_all_others_are_trained(debiasbench: Begin) -> None:
    grid = '[grid]\nmethod = ["vanishes", "exits", "untrained"]\n'
    Path("s.toml").write_text(f'{HEAD}"train.epochs" = 1\n{grid}')
    words = ("sweep", "s.toml", "--on", "slurm", "--workers", 2, "--device", "cpu")
    with debiasbench(*words, "--", "--time=5") as sweep:
        told, errors = sweep.communicate(timeout=300)
    assert told.splitlines()[-1] == "3 runs: 1 trained, 0 already done, 2 failed", errors
    lost = "failed: its process was killed by signal 9 before the record was written, 3 times\n"
    assert errors.count(lost) == 1
    assert sweep.returncode in {1, 3}  # of the first that failed
    assert len(records()) == 1
    assert states("method=vanishes").count("begun") == 3
    assert states("method=exits").count("begun") == 1
    with debiasbench(*words, "--dry-run") as again:
        assert "for the 2 runs in jobs.json" in again.communicate()[0]


def test_a_killed_and_a_stopped_worker_leave_their_runs_to_the_others(
    debiasbench: Begin, commands: Path
) -> None:
    Path("s.toml").write_text(f'{HEAD}method = "waits"\n[grid]\nseed = [0, 1, 2, 3]\n')
    words = ("sweep", "s.toml", "--on", "slurm", "--workers", 2, "--device", "cpu", "--no-wait")
    with debiasbench(*words) as sweep:
        assert sweep.wait(60) == 0
    wait_until(lambda: states("seed=0") == ["begun"] and states("seed=2") == ["begun"])
    begun = folder().path.parent.parent / ".locks"
    wait_until(lambda: len(list(begun.glob("digits-waits-*.lock"))) == 2)
    state = commands / "state"
    # the whole task of the first worker is gone, as after a failure of its node
    os.killpg(int((state / "7_0.pid").read_text()), signal.SIGKILL)
    (state / "7_0.pid").unlink()
    # the second one is pre-empted: its script is told, and the task is queued again
    os.kill(int((state / "7_1.bash").read_text()), signal.SIGTERM)
    wait_until(lambda: states("seed=2")[:2] == ["begun", "interrupted"])
    Path("go").touch()
    wait_until(lambda: not list(state.glob("*.pid")), 120)
    finals = sorted(
        (line.title, line.state) for line in Told(folder()).read() if line.state in FINAL
    )
    assert [title for title, _ in finals] == [f"seed={n}" for n in range(4)]
    assert {state for _, state in finals} <= {"trained", "done"}
    assert states("seed=0").count("begun") >= 2
    assert len(records()) == 4
    log = (folder().logs / "7_1.log").read_text()
    assert "4 runs: " in log
    assert not list(Path("results/.locks").glob("*.lock"))


def test_a_stopped_run_goes_on_from_its_checkpoint_to_the_record_of_a_run_at_once(
    debiasbench: Begin, commands: Path
) -> None:
    suite = f'{HEAD}method = "erm"\n"train.epochs" = 50\n[grid]\nseed = [0]\n'
    Path("s.toml").write_text(suite)
    sweep_here("s.toml", "here")
    words = ("sweep", "s.toml", "--on", "slurm", "--workers", 1, "--device", "cpu")
    with debiasbench(*words) as sweep:
        stages = Path("results") / stage_store.FOLDER
        wait_until(lambda: list(stages.glob("[!.]*/")))
        os.kill(int((commands / "state" / "7_0.bash").read_text()), signal.SIGTERM)
        told, errors = sweep.communicate(timeout=200)
    assert told.splitlines()[-1] == "1 run: 1 trained, 0 already done", errors
    assert states("seed=0") == ["begun", "interrupted", "begun", "trained"]
    interrupted = next(line for line in Told(folder()).read() if line.state == "interrupted")
    assert interrupted.exit_code == 75  # a checkpoint was stored
    equal_records("here", "results")


def test_the_trials_of_a_search_are_done_by_workers_too(debiasbench: Begin) -> None:
    search = ("search", "erm", "--dataset", "digits", "--model", "mlp", "--device", "cpu")
    few = ("--epochs", 1, "--trials", 2, "--seeds", 0, "--quiet")
    with debiasbench(*search, *few, "--on", "slurm", "--workers", 1) as searching:
        told, errors = searching.communicate(timeout=300)
    assert searching.returncode == 0, errors
    assert "| erm" in told
    assert len(list(Path("results/search").glob("*.trial.json"))) == 2
    assert len(records()) == 1
    logs = "".join(log.read_text() for log in Path("results/.jobs").glob("*/logs/*.log"))
    assert "Error" not in logs

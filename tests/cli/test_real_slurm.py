"""`--on slurm` on a real Slurm of one node; see `tests/slurm_node.py`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from debiasbench.runs.job_folder import FINAL, JobFolder, Told
from tests.fake_slurm import wait_until
from tests.slurm_node import VARIABLE, one_node
from tests.worker_plugin import HEAD, Begin, command_line, equal_records, sweep_here

PACKAGES = os.environ.get(VARIABLE)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PACKAGES is None, reason=f"{VARIABLE} names no folder with Slurm"),
]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Slurm with an idle node, and an empty working folder."""
    assert PACKAGES is not None
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    with one_node(Path(PACKAGES), tmp_path / "slurm") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield


@pytest.fixture
def debiasbench(slurm: None, tmp_path: Path) -> Begin:
    return command_line(tmp_path / "plugins")


def called(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def tasks() -> dict[str, str]:
    """The state of each task, by its number in the array."""
    lines = called("squeue", "--noheader", "--array", "--format=%K %T").splitlines()
    return dict(line.split() for line in lines)


def workers() -> dict[str, int]:
    """The process of each worker that has a run, by its number."""
    found = {}
    for lock in Path("results/.jobs").glob("*/.locks/*.lock"):
        text = lock.read_text()
        if job := re.search(r"pid=(\d+)\n.*\njob=\d+_(\d+)\n", text):
            found[job[2]] = int(job[1])
    return found


def test_each_run_has_one_record_if_a_worker_is_killed_one_stopped_and_one_queued_again(
    debiasbench: Begin,
) -> None:
    grid = '[grid]\nmethod = ["erm", "upweight"]\nseed = [0, 1, 2]\n'
    Path("s.toml").write_text(f'{HEAD}"train.epochs" = 60\n{grid}')
    words = ("sweep", "s.toml", "--on", "slurm", "--workers", 3, "--device", "cpu", "--quiet")
    with debiasbench(*words, "--", "--partition=main", "--time", "10") as sweep:
        stages = Path("results/.stages")
        wait_until(lambda: len(workers()) == 3 and len(list(stages.glob("[!.]*/"))) == 3, 120)
        os.kill(workers()["0"], signal.SIGKILL)
        called("scancel", "--batch", "--signal=TERM", "1_1")
        called("scontrol", "requeue", "1_2")
        wait_until(lambda: [tasks().get(number) for number in "12"] == 2 * ["PENDING"], 60)
        for number in "12":  # Slurm would wait two minutes
            called("scontrol", "update", f"JobId=1_{number}", "StartTime=now")
        told, errors = sweep.communicate(timeout=400)
    assert re.fullmatch(r"6 runs: [56] trained, [01] already done", told.splitlines()[-1]), (
        told + errors
    )
    (path,) = Path("results/.jobs").iterdir()
    lines = Told(JobFolder(path.absolute())).read()
    finals = [line.title for line in lines if line.state in FINAL]
    assert len(finals) == len(set(finals)) == 6
    restarted = {line.worker for line in lines if line.restart == 1}
    assert restarted  # the second of them may find nothing left to do
    assert restarted <= {1, 2}
    assert {line.worker for line in lines if line.state == "interrupted"} == {1, 2}
    sweep_here("s.toml", "here")
    equal_records("here", "results")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--partition=none"], "invalid partition specified: none; Batch job submission failed: "),
        (["--gres=gpu:1"], "Invalid generic resource (gres) specification"),
        (["--nonsense"], "unrecognized option '--nonsense'"),
        (["--time=banana"], "Invalid --time specification"),
    ],
)
def test_what_slurm_refuses_is_one_line_in_its_words(
    debiasbench: Begin, words: list[str], said: str
) -> None:
    Path("s.toml").write_text(f'{HEAD}method = "untrained"\n')
    array = ("--on", "slurm", "--workers", 1, "--device", "cpu")
    with debiasbench("sweep", "s.toml", *array, "--", *words) as sweep:
        _, errors = sweep.communicate(timeout=120)
    assert sweep.returncode == 2
    assert errors.startswith(f"Error: sbatch refused the array: {said}")
    assert errors.count("\n") == 1


def test_an_array_that_cannot_start_says_why_it_waits_and_can_be_cancelled(
    debiasbench: Begin,
) -> None:
    Path("s.toml").write_text(f'{HEAD}method = "untrained"\n')
    array = ("--on", "slurm", "--workers", 1, "--device", "cpu")
    with debiasbench("sweep", "s.toml", *array, "--", "--hold", '--comment=a "b"') as refused:
        assert "without quotes" in refused.communicate(timeout=120)[1]
    with debiasbench("sweep", "s.toml", *array, "--", "--hold", "--comment=a b") as sweep:
        assert sweep.stderr is not None
        assert sweep.stderr.readline().startswith("Array 1 of Slurm has 1 run; logs are in ")
        assert sweep.stderr.readline() == "Waiting for Slurm: 1 task pending (JobHeldUser)\n"
        assert "a b" in called("squeue", "--noheader", "--format=%k")
        called("scancel", "1")
        assert "Error: Array 1 of Slurm is over, and 1 run of it has no outcome. " in (
            sweep.stderr.read()
        )
        assert sweep.wait(60) == 1

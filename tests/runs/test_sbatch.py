"""What goes to sbatch, the script of an array, and what Slurm answers."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from debiasbench.common.errors import OptionError
from debiasbench.runs.job_folder import JobFolder
from debiasbench.runs.on_slurm import script
from debiasbench.runs.sbatch import (
    Settings,
    SlurmError,
    Task,
    sbatch_lines,
    submit,
    tasks,
    words_of,
)
from tests import fake_slurm
from tests.runs.test_pull import some_jobs


def test_words_become_lines_for_sbatch() -> None:
    words = ["--partition=gpu", "--gres", "gpu:1", "-t", "4:00:00", "--exclusive", "--comment=a b"]
    assert sbatch_lines(words) == [
        "--partition=gpu",
        "--gres gpu:1",
        "-t 4:00:00",
        "--exclusive",
        '--comment="a b"',
    ]
    table = {"partition": "gpu", "nodes": 1, "exclusive": True}
    assert words_of(table) == ["--partition=gpu", "--nodes=1", "--exclusive"]
    assert sbatch_lines(["--signal=B:USR1@300", "--mem=8G"]) == ["--signal=B:USR1@300", "--mem=8G"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["gpu"], "'gpu' is no option for sbatch: these begin with -"),
        (["--partition=gpu", "other"], "'other' is no option"),
        (["--"], "'--' is no option"),
        (["--array=0-3"], "'--array=0-3' cannot be given to sbatch: --workers N sets"),
        (["--job=mine"], "'--job=mine' cannot be given to sbatch: the same command finds"),
        (["--sig=KILL"], "'--sig=KILL' for sbatch would not reach the worker"),
        (["--err", "x"], "'--err' cannot be given to sbatch: logs are in"),
        (["-a", "0-3"], "'-a' cannot be given to sbatch: --workers N sets"),
        (["-ofile"], "'-ofile' cannot be given to sbatch: logs are in"),
        (["--wrap=ls"], "'--wrap=ls' cannot be given to sbatch: the command makes the script"),
        (["--signal=USR1@60"], "'--signal=USR1@60' for sbatch would not reach the worker"),
        (["--comment=a\n#SBATCH --wrap=rm"], "without quotes, backslashes, \\$ and control"),
        (['--comment="'], "without quotes"),
        (["--comment", "$HOME"], "without quotes"),
        ([""], "'' is no option"),
    ],
)
def test_words_that_sbatch_must_not_get_are_refused(words: list[str], reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        sbatch_lines(words)


SCRIPT = """#!/bin/bash
# 3 workers of debiasbench {version} for the 6 runs in jobs.json, which is beside this file
#SBATCH --job-name={name}
#SBATCH --array=0-2
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --open-mode=append
#SBATCH --output="{folder}/logs/%A_%a.log"
#SBATCH --partition=gpu
#SBATCH --gres gpu:1
"""


def test_the_script_has_all_that_the_array_needs(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "a folder")
    settings = Settings(
        ["--partition=gpu", "--gres gpu:1"], ["module load cuda", "source venv/bin/activate"]
    )
    text = script(folder, some_jobs(tmp_path, workers=3), settings)
    begin = SCRIPT.format(version=version("debiasbench"), name=folder.name, folder=folder.path)
    assert text.startswith(begin)
    lines = text.splitlines()
    worker = next(i for i, line in enumerate(lines) if "debiasbench work" in line)
    setup = lines.index("module load cuda")
    assert lines[setup + 1] == "source venv/bin/activate"
    assert next(i for i, line in enumerate(lines) if line.startswith("trap")) < setup < worker
    command = f"-m debiasbench work {shlex.quote(str(folder.jobs))} --pull"
    assert f'{command} "$SLURM_ARRAY_TASK_ID" &' in lines[worker]
    assert lines[worker].split()[0] == sys.executable
    assert 'scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"' in text


def test_the_script_uses_another_interpreter_if_asked(tmp_path: Path) -> None:
    settings = Settings(python="python3.12")
    text = script(JobFolder(tmp_path), some_jobs(tmp_path, workers=1), settings)
    assert "\n    python3.12 -P -m debiasbench work " in text


PYTHON = """#!/bin/sh
trap 'exit {stopped}' TERM
touch "$0.began-$SLURM_RESTART_COUNT"
{work}
"""


@pytest.mark.parametrize(
    ("work", "stopped", "restart", "requeued", "code"),
    [
        ("exit 0", 0, 0, False, 0),
        ("exit 3", 0, 0, False, 3),
        ("exit 75", 0, 9, True, 0),
        ("exit 130", 0, 4, True, 0),
        ("exit 130", 0, 5, False, 130),
        ("exit 127", 0, 0, False, 127),
        ("kill -KILL $$", 0, 0, False, 137),
        ("kill -TERM $PPID; sleep 10 & wait $!", 75, 0, True, 0),
        ("kill -USR1 $PPID; sleep 10 & wait $!", 130, 0, True, 0),
        ("kill -TERM $PPID; sleep 10 & wait $!", 7, 0, False, 7),
    ],
)
def test_the_script_passes_signals_on_and_queues_a_stopped_task_again(
    tmp_path: Path, work: str, stopped: int, restart: int, requeued: bool, code: int
) -> None:
    commands = tmp_path / "commands"
    environment = fake_slurm.install(commands)
    python = commands / "python"
    python.write_text(PYTHON.format(stopped=stopped, work=work))
    python.chmod(0o755)
    file = tmp_path / "array.sh"
    settings = Settings(python=str(python))
    file.write_text(script(JobFolder(tmp_path), some_jobs(tmp_path, workers=1), settings))
    task = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    variables = {**environment, **task, "SLURM_RESTART_COUNT": str(restart)}
    done = subprocess.run(["bash", str(file)], env=variables, check=False, timeout=30)
    assert done.returncode == code
    assert (commands / "state" / "7_2.again").exists() == requeued


def test_a_signal_during_the_setup_does_not_start_the_worker(tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    environment = fake_slurm.install(commands)
    file = tmp_path / "array.sh"
    settings = Settings(setup=["kill -TERM $$"], python="/none")
    file.write_text(script(JobFolder(tmp_path), some_jobs(tmp_path, workers=1), settings))
    variables = {**environment, "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    assert subprocess.run(["bash", str(file)], env=variables, check=False).returncode == 0
    assert (commands / "state" / "7_2.again").exists()


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that stands alone on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def command(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_machine_without_slurm_is_said_in_one_line(commands: Path) -> None:
    with pytest.raises(OptionError, match="needs Slurm's command sbatch, which is not on PATH"):
        submit(Path("array.sh"))
    assert tasks("name") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'echo "sbatch: error: invalid partition specified: gpu" >&2\n'
            'echo "sbatch: error: Batch job submission failed: Invalid partition" >&2; exit 1',
            "sbatch refused the array: invalid partition specified: gpu; "
            "Batch job submission failed: Invalid partition$",
        ),
        (
            "echo \"sbatch: unrecognized option '--nope'\" >&2\n"
            "echo 'Try \"sbatch --help\" for more information' >&2; exit 255",
            "sbatch refused the array: unrecognized option '--nope'$",
        ),
        ("exit 4", "sbatch refused the array: it ended with exit code 4$"),
        ("echo Submitted", "sbatch refused the array: Submitted$"),
    ],
)
def test_what_sbatch_refuses_is_said_in_its_words(commands: Path, text: str, said: str) -> None:
    command(commands, "sbatch", text)
    with pytest.raises(OptionError, match=said):
        submit(Path("array.sh"))


def test_the_number_of_a_job_is_that_of_sbatch(commands: Path) -> None:
    command(commands, "sbatch", 'echo "12;cluster"')
    assert submit(Path("array.sh")) == "12"


def test_tasks_are_those_that_squeue_lists(commands: Path) -> None:
    command(commands, "squeue", 'echo "7|PENDING|Resources, (a|b)"; echo "7|RUNNING|None"')
    command(commands, "sbatch", "")
    assert tasks("x") == [Task("7", "PENDING", "Resources, (a|b)"), Task("7", "RUNNING", "None")]
    command(commands, "squeue", 'echo "slurm_load_jobs error: no controller" >&2; exit 1')
    with pytest.raises(SlurmError, match="Slurm does not answer: slurm_load_jobs error: no"):
        tasks("x")

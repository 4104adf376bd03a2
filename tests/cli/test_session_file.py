"""`--session FILE.toml`: defaults for options, which the command line replaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.calls import RUN, only, records
from tests.suites import BASE, write

Cli = Callable[..., Result]


def session(text: str) -> tuple[str, str]:
    Path("session.toml").write_text(text)
    return "--session", "session.toml"


def test_options_come_from_the_file_and_the_command_line_wins(debiasbench: Cli) -> None:
    words = session('results = "from-file"\ngraphs = false\ncompile = "off"\njobs = 2\n')
    assert debiasbench(*RUN, *words).exit_code == 0
    assert len(records("from-file")) == 1
    assert debiasbench(*RUN, *words, "--results", "given").exit_code == 0
    assert len(records("given")) == 1


def test_a_file_serves_all_commands_that_train(debiasbench: Cli) -> None:
    words = session('results = "from-file"\ntogether = 2\n')
    done = debiasbench("sweep", write(BASE), *words, "--quiet")
    assert (done.exit_code, len(records("from-file"))) == (0, 1), done.output
    fast = ("--dataset", "toy", "--model", "mlp", "--epochs", 1, "--seeds", "0-1", "--quiet")
    assert debiasbench("compare", "erm", *fast, *words).exit_code == 0
    assert len(records("from-file")) == 2  # seed 0 was there


def test_a_table_for_slurm_is_used_on_slurm_only(debiasbench: Cli) -> None:
    table = """
[slurm]
workers = 3
python = "/env/bin/python"
setup = ["module load cuda"]
sbatch = {partition = "gpu", gres = "gpu:1", nodes = 1, exclusive = true}
"""
    words = ("sweep", write(BASE + "[grid]\nseed = [0, 1, 2, 3]\n"), *session(table), "--dry-run")
    assert "1/4  seed=0\n" in debiasbench(*words).stdout
    script = debiasbench(*words, "--on", "slurm", "--", "--partition=other").stdout
    lines = (
        "#SBATCH --array=0-2",
        "#SBATCH --partition=gpu\n#SBATCH --gres=gpu:1\n#SBATCH --nodes=1\n#SBATCH --exclusive\n"
        "#SBATCH --partition=other",  # the last one counts
        "module load cuda",
        "    /env/bin/python -P -m debiasbench work",
    )
    for line in lines:
        assert f"\n{line}" in script
    words = ("sweep", write(BASE), *session(f'on = "slurm"\n{table}'), "--dry-run")
    assert debiasbench(*words, "--workers", 1).stdout.startswith("#!/bin/bash\n# 1 worker of ")
    assert debiasbench(*words, "--on", "local").stdout.startswith("1/1  mine\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("data_root = 'x'", "unknown key 'data_root'. Did you mean 'data-root'? Known keys: "),
        ("[slurm]\nworker = 3", "unknown key 'slurm.worker'. Did you mean 'workers'?"),
        ("[pbs]\n", "unknown key 'pbs'."),
        ("device = 3", "device = 3: must be a text"),
        ("deterministic = 'yes'", "deterministic = 'yes': must be true or false"),
        ("jobs = true", "jobs = True: must be a number"),
        ("together = 1.5", "together = 1.5: must be a number or a text"),
        ("slurm = 3", "slurm = 3: must be a table"),
        ("slurm.setup = 'x'", "slurm.setup = 'x': must be a list"),
        ("slurm.setup = [3]", "slurm.setup has 3: lines are texts"),
        ("slurm.sbatch.gres = ['a']", "slurm.sbatch.gres = ['a']: must be a text, a number, or"),
        ("slurm.sbatch.exclusive = false", "slurm.sbatch.exclusive = False: must be a text"),
        ("on = 'slurm'\nslurm.sbatch.array = '0-3'", "'--array=0-3' cannot be given to sbatch"),
        ("jobs = 0", "Invalid value for '--jobs': 0 is not in the range x>=1. (in session.toml)"),
        ("compile = 'most'", "'most' is not one of 'off', 'on'. (in session.toml)"),
        ("device", "session.toml is not TOML: "),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_name(
    debiasbench: Cli, text: str, reason: str
) -> None:
    done = debiasbench("sweep", write(BASE), *session(text))
    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert reason in said
    assert "session.toml" in said or "sbatch" in said
    assert records() == []


def test_a_file_that_is_not_there_is_one_line(debiasbench: Cli) -> None:
    done = debiasbench("sweep", write(BASE), "--session", "none.toml")
    assert only(done, 2) == "--session: none.toml cannot be read: No such file or directory"

"""`sweep --jobs`: several processes share the runs of a suite, and every run is accounted for."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from debiasbench.training import stage_store
from tests import warm
from tests.worker_plugin import HEAD, command_line

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the current one; return a folder for the plugin."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path / "plugins"


def records() -> list[Path]:
    return sorted(Path("results").glob("*.json"))


def test_workers_import_nothing_from_the_working_folder(folder: Path) -> None:
    for name in ("click.py", "json.py", "debiasbench/__init__.py"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("raise SystemExit(0)\n")
    Path("-s.toml").write_text(f'{HEAD}method = "untrained"\n[grid]\nseed = [0, 1]\n')
    debiasbench = command_line(folder, python=sys.executable)  # with nothing imported before
    with debiasbench("sweep", "--jobs", 2, "--", "-s.toml") as parent:
        told, errors = parent.communicate()
    assert told.splitlines()[-1] == "2 runs: 2 trained, 0 already done", errors


def test_runs_that_end_their_process_fail_and_all_others_are_trained(folder: Path) -> None:
    grid = '[grid]\nmethod = ["vanishes", "exits", "untrained"]\n'
    Path("s.toml").write_text(f'{HEAD}"train.epochs" = 1\n{grid}')
    with command_line(folder)("sweep", "--jobs", 2, "s.toml") as parent:
        told, errors = parent.communicate()
    assert told.splitlines()[-1] == "3 runs: 1 trained, 0 already done, 2 failed", errors
    assert "1/3  method=vanishes  failed: its process was killed by signal 9 before" in errors
    assert "2/3  method=exits  failed: " in errors
    assert parent.returncode in {1, 3}  # of the first that failed
    assert len(records()) == 1


def test_compare_shares_out_its_runs_and_prints_one_table(tmp_path: Path) -> None:
    words = "compare erm upweight --model mlp --seeds 0-1 --epochs 1 --device cpu --jobs 2 --quiet"
    done = warm.debiasbench(
        *words.split(), folder=tmp_path, environment={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert sorted(line.partition("/4")[0] for line in lines[:-1]) == ["1", "2", "3", "4"]
    assert lines[-1] == "4 runs: 4 trained, 0 already done"
    assert done.stdout.count("upweight") >= 1


def running() -> list[Path]:
    return list((Path("results") / stage_store.FOLDER).glob(f"[!.]*/{stage_store.RUNNING}"))


def test_a_class_of_a_file_is_trained_by_other_processes(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(
        "from dataclasses import dataclass\nfrom debiasbench import Method\n\n"
        "@dataclass(frozen=True)\nclass Mine(Method):\n    def fit(self, lab):\n"
        '        return lab.train(lab.model(), name="train")\n'
    )
    words = "compare erm my.py --model mlp --seeds 0 --epochs 1 --device cpu --jobs 2 --quiet"
    done = warm.debiasbench(
        *words.split(), folder=tmp_path, environment={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert "2 runs: 2 trained, 0 already done" in done.stderr
    assert "my.py:Mine@" in done.stdout


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGKILL"])
def test_a_signal_to_the_parent_reaches_each_worker_once(folder: Path, how: str) -> None:
    Path("s.toml").write_text(
        f'{HEAD}method = "erm"\n"train.epochs" = 100000\n[grid]\nseed = [0, 1]\n'
    )
    with command_line(folder)("sweep", "--jobs", 2, "s.toml") as parent:
        stages = Path("results") / stage_store.FOLDER
        while len(list(stages.glob("[!.]*/"))) < 2:  # workers may still import parts of torch
            assert parent.poll() is None, parent.communicate()
            time.sleep(0.05)
        if how == "Ctrl-C":  # to the process group, as a terminal does
            os.killpg(parent.pid, signal.SIGINT)
        else:
            parent.kill()
        told, errors = parent.communicate()  # returns when the workers have ended too
    assert len(running()) == 2, errors
    assert "failed" not in told + errors
    if how == "SIGKILL":
        assert parent.returncode == -signal.SIGKILL
    else:
        assert parent.returncode == 75, errors
        assert errors.endswith(
            "Interrupted. The records of finished runs are stored, and the same command continues "
            "the others. 2 runs: 0 trained, 0 already done, 2 left\n"
        )

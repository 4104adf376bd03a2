"""The number of threads decides the last bits; it does not depend on how a run is started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from debiasbench.records.record import Record
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.training import checkpoint, stage_store
from tests.running import run

pytestmark = pytest.mark.slow  # threads wait for each other where other tests use the cores


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def trained(folder: Path, **training: Any) -> Record:
    plugins = Plugins()
    spec = make_spec(plugins, method="erm", model="mlp", training={"epochs": 1, **training})
    return run(spec, plugins, results=folder, data_root=folder, keep_weights=True).record


def bits(record: Record) -> str:
    assert record.weights is not None
    return record.weights["sha256"]


def test_a_spec_with_a_number_of_threads_has_one_result(tmp_path: Path) -> None:
    results = {}
    for session in (1, 2):
        torch.set_num_threads(session)
        results[session] = trained(tmp_path / f"{session}", threads=2)
        assert torch.get_num_threads() == session
    assert bits(results[1]) == bits(results[2])
    assert [r.provenance.arithmetic["threads"] for r in results.values()] == [2, 2]
    assert [r.spec.training["threads"] for r in results.values()] == [2, 2]
    torch.set_num_threads(2)
    by_default = trained(tmp_path / "default")
    assert bits(by_default) == bits(results[1])
    assert by_default.provenance.arithmetic["threads"] == 2
    assert "threads" not in by_default.spec.training  # ids of older records stay


def test_a_stage_is_not_shared_by_runs_with_other_threads(tmp_path: Path) -> None:
    first = trained(tmp_path / "shared", threads=1)
    torch.set_num_threads(2)
    second = trained(tmp_path / "shared")
    assert second.cost is not None
    assert [stage["reused"] for stage in second.cost.stages] == [False]
    assert bits(second) == bits(trained(tmp_path / "alone", threads=2))
    assert first.id != second.id


SUITE = """
name = "s"
description = "d"
source = "s"
[base]
dataset = "digits"
model = "cnn"
"model.width" = 4
method = "erm"
"train.epochs" = 1
[grid]
seed = [0, 1]
"""


def test_a_run_has_equal_bits_alone_and_beside_another(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(SUITE)
    environment = {name: v for name, v in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["OMP_WAIT_POLICY"] = "passive"  # other tests use the cores too

    def weights(results: str, *words: str) -> dict[str, Any]:
        """Sweep, and return the weights of each stage by its identity."""
        command = [sys.executable, "-m", "debiasbench", "sweep", "s.toml", "--results", results]
        done = subprocess.run(
            [*command, *words],
            cwd=tmp_path,
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        *lines, summary = done.stdout.splitlines()
        assert summary == "2 runs: 2 trained, 0 already done"
        assert sum(line.endswith("%") for line in lines) == 2  # a line for each
        stages = (tmp_path / results / stage_store.FOLDER).glob(f"*/{stage_store.FINISHED}")
        return {path.parent.name: checkpoint.load(path)["objective"] for path in stages}

    alone, beside = weights("alone"), weights("beside", "--jobs", "2")
    assert len(alone) == 2
    assert alone.keys() == beside.keys()  # the identity holds the number of threads
    for stage, state in alone.items():
        assert all(torch.equal(value, beside[stage][name]) for name, value in state.items())

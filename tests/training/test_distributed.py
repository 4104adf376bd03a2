"""One run over several processes: the same batches, sums, masks and record as one process has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from debiasbench.common.errors import OptionError
from debiasbench.core.data import Batch
from debiasbench.core.objective import CrossEntropy
from debiasbench.core.settings import Training
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.specs.spec import Spec
from debiasbench.training.distributed import Alone, Processes
from tests.conftest import ACME, ToyPlugin
from tests.running import run
from tests.training.stages import ON_CPU, train

PLUGINS = Plugins([(ToyPlugin(), ACME)])

# what `torchrun` starts: each process runs the spec and says what it came to
MEMBER = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from debiasbench.common.errors import Interrupted
from debiasbench.training.trainer import Sequential
from tests.running import run
from tests.training.test_distributed import PLUGINS, spec_of

rank, stop_at = int(os.environ["RANK"]), {stop_at}
pause = Sequential._pause
def stopping(self, run, stored):
    if rank == 1 and run.at.step == stop_at:
        self._stop.request()
    pause(self, run, stored)
Sequential._pause = stopping
try:
    done = run(spec_of({method!r}, {sparse!r}), PLUGINS, results=Path({results!r}),
               data_root=Path("."), device="cpu", keep_weights=True, checkpoint_every=0.0)
    said = [done.record.weights["sha256"], done.record.predictions["sha256"], done.fresh]
except Interrupted as error:
    said = [str(error), error.resumable]
Path({results!r}, f"said-{{rank}}.json").write_text(json.dumps(said))
"""


def spec_of(method: str, sparse: str | None = None, **training: Any) -> Spec:
    return make_spec(
        PLUGINS,
        method=method,
        dataset="toy",
        model="mlp",
        seed=3,
        training={"epochs": 2, "batch_size": 16, "lr": 0.05, **training},
        sparse=sparse,
    )


def together(
    results: Path, method: str, sparse: str | None = None, stop_at: int = -1
) -> list[list[Any]]:
    """Run a spec in two processes over gloo; return what each says."""
    results.mkdir(exist_ok=True)
    root = Path(__file__).parent.parent.parent
    script = results / "member.py"
    script.write_text(
        MEMBER.format(
            root=str(root), method=method, sparse=sparse, results=str(results), stop_at=stop_at
        )
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((results / f"said-{rank}.json").read_text()) for rank in range(2)]


def alone(results: Path, method: str, sparse: str | None = None) -> list[Any]:
    """One process that computes each batch in the same two parts."""
    done = run(
        spec_of(method, sparse, micro_batch=8),
        PLUGINS,
        results=results,
        data_root=Path(),
        device="cpu",
        keep_weights=True,
    )
    assert done.record.weights is not None
    assert done.record.predictions is not None
    return [done.record.weights["sha256"], done.record.predictions["sha256"], True]


@pytest.mark.parametrize(("method", "sparse"), [("rest", None), ("jtt", "set")])
def test_two_processes_end_with_the_bits_of_one_on_all_ranks(
    tmp_path: Path, method: str, sparse: str | None
) -> None:
    first, second = together(tmp_path / "two", method, sparse)
    assert first == second == alone(tmp_path / "one", method, sparse)
    (record,) = (tmp_path / "two").glob("toy-*.json")
    assert json.loads(record.read_text())["provenance"]["arithmetic"]["processes"] == 2


def test_a_run_of_two_that_one_was_asked_to_stop_goes_on_in_the_same_bits(tmp_path: Path) -> None:
    where = " in stage 'train' after 10 of 20 steps: run the same command again to continue"
    stopped = together(tmp_path / "two", "rest", stop_at=7)
    assert stopped == [[f"Interrupted{where}", True]] * 2
    assert list((tmp_path / "two").glob("toy-*.json")) == []
    first, second = together(tmp_path / "two", "rest")
    assert first == second == alone(tmp_path / "one", "rest")


def test_a_loss_that_needs_the_whole_batch_is_not_cut(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"GroupDROLoss\) depends on the whole batch"):
        run(
            spec_of("groupdro", micro_batch=8),
            PLUGINS,
            results=tmp_path,
            data_root=Path(),
            device="cpu",
        )


def test_a_batch_too_small_for_batch_norm_in_each_process_is_refused() -> None:
    two = replace(ON_CPU, team=member(0, 2))
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Linear(192, 2))
    with pytest.raises(OptionError, match=r"has 3 samples.* at least 2 in each of 2 processes"):
        train(CrossEntropy(network), execution=two, training=Training(batch_size=157))


def batch_of(n: int) -> Batch:
    return Batch(torch.arange(n)[:, None].float(), torch.arange(n), torch.arange(n))


def member(rank: int, size: int) -> Processes:
    team = Processes.__new__(Processes)
    team.rank, team.size = rank, size
    return team


@pytest.mark.parametrize(("n", "size"), [(16, 2), (17, 2), (7, 3), (2, 3), (1, 4)])
def test_parts_of_a_batch_are_all_of_it_once_by_weight(n: int, size: int) -> None:
    shares = [member(rank, size).share(batch_of(n)) for rank in range(size)]
    assert sum(weight for _, weight in shares) == pytest.approx(1)
    taken = [i for part, weight in shares if weight for i in part.index.tolist()]
    assert taken == list(range(n))
    assert all(len(part) == weight * n for part, weight in shares if weight)
    assert all(len(part) == 1 for part, weight in shares if not weight)


def test_one_process_has_the_whole_batch() -> None:
    batch = batch_of(5)
    assert Alone().share(batch) == (batch, 1.0)
    assert Alone().any(3, True, False) == (True, False)

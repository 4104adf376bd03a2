"""One run over several processes: the same batches, sums, masks and record as one process has."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
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
from tests import warm
from tests.conftest import ACME, ToyPlugin
from tests.running import run
from tests.training.stages import ON_CPU, train

PLUGINS = Plugins([(ToyPlugin(), ACME)])

# each process runs the specs in turn and says what each came to
MEMBER = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from torch import distributed
from debiasbench.common.errors import Interrupted
from debiasbench.training.stage_training import StageTraining
from tests.running import run
from tests.training.test_distributed import PLUGINS, spec_of

rank = int(os.environ["RANK"])
pause = StageTraining._pause
def stopping(self, stored):
    if rank == 1 and self.run.at.step == stop_at:
        self._surroundings.stop.request()
    pause(self, stored)
StageTraining._pause = stopping
runs, leave = {runs!r}, lambda: None
if len(runs) > 1:  # processes can meet once only: they stay together for all runs
    distributed.init_process_group()
    leave = distributed.destroy_process_group
    distributed.init_process_group = distributed.destroy_process_group = lambda **_: None
for results, method, sparse, stop_at in runs:
    try:
        done = run(spec_of(method, sparse), PLUGINS, results=Path(results),
                   data_root=Path("."), device="cpu", keep_weights=True, checkpoint_every=0.0)
        said = [done.record.weights["sha256"], done.record.predictions["sha256"], done.fresh]
    except Interrupted as error:
        said = [str(error), error.resumable]
    Path(results, f"said-{{rank}}.json").write_text(json.dumps(said))
leave()
"""

NEVER = -1
RUNS = {"rest": ("rest", None, NEVER), "jtt": ("jtt", "set", NEVER), "stopped": ("rest", None, 7)}


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


def with_torchrun(script: Path) -> None:
    torchrun = "import sys; from torch.distributed.run import main; main(sys.argv[1:])"
    done = warm.run(torchrun, "--standalone", "--nproc-per-node=2", script)
    assert done.returncode == 0, done.stderr[-3000:]


def as_torchrun_would(script: Path) -> None:
    """Start two processes with the environment that `torchrun` gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    code = script.read_text()
    with ExitStack() as stack:
        members = []
        for rank in ("0", "1"):
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
            environment = {**os.environ, **meeting, **numbers}
            members.append(stack.enter_context(warm.Process(code, environment=environment)))
        assert [member.wait() for member in members] == [0, 0], members[0].stderr[-3000:]


def together(
    folder: Path, start: Callable[[Path], None], **runs: tuple[str, str | None, int]
) -> dict[str, list[list[Any]]]:
    """Run specs in two processes over gloo; return what each process says of each.

    `runs`: a folder of results -> the method, the sparse algorithm, and the step to stop at.
    """
    root = Path(__file__).parent.parent.parent
    script = folder / "member.py"
    for name in runs:
        (folder / name).mkdir(exist_ok=True)
    places = [(str(folder / name), *words) for name, words in runs.items()]
    script.write_text(MEMBER.format(root=str(root), runs=places))
    start(script)
    return {
        name: [json.loads((folder / name / f"said-{rank}.json").read_text()) for rank in range(2)]
        for name in runs
    }


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[list[Any]]]]:
    """The folder of all runs, and what two processes say of each."""
    folder = tmp_path_factory.mktemp("two")
    return folder, together(folder, with_torchrun, **RUNS)


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


@pytest.mark.slow
@pytest.mark.parametrize(("method", "sparse"), [("rest", None), ("jtt", "set")])
def test_two_processes_end_with_the_bits_of_one_on_all_ranks(
    two: tuple[Path, dict[str, Any]], tmp_path: Path, method: str, sparse: str | None
) -> None:
    folder, said = two
    first, second = said[method]
    assert first == second == alone(tmp_path / "one", method, sparse)
    (record,) = (folder / method).glob("toy-*.json")
    assert json.loads(record.read_text())["provenance"]["arithmetic"]["processes"] == 2


@pytest.mark.slow
def test_a_run_of_two_that_one_was_asked_to_stop_goes_on_in_the_same_bits(
    two: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, said = two
    where = " in stage 'train' after 10 of 20 steps: run the same command again to continue"
    assert said["stopped"] == [[f"Interrupted{where}", True]] * 2
    assert list((folder / "stopped").glob("toy-*.json")) == []
    again = together(folder, as_torchrun_would, stopped=("rest", None, NEVER))
    first, second = again["stopped"]
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

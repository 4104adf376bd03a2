"""Plans: what runs will take, from records of similar runs or from some of their steps."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from debiasbench import Method
from debiasbench.measure.plan import Item, Plan, free_disk, plan
from debiasbench.runs.session import Session
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.specs.spec import Spec
from debiasbench.training.stage_store import LIMIT
from tests.conftest import ACME, ToyPlugin, offering

FAST = "--dataset toy --epochs 1 --device cpu"

pytestmark = pytest.mark.usefixtures("empty_folder")


@dataclass(frozen=True)
class Slow(Method):
    """Takes about 20 ms for each step."""

    def fit(self, lab: Any) -> Any:
        import time

        from torch import Tensor

        from debiasbench import Batch
        from debiasbench.core.objective import CrossEntropy

        class Waiting(CrossEntropy):
            def forward(self, batch: Batch) -> Tensor:
                time.sleep(0.02)
                return super().forward(batch)

        return lab.train(Waiting(lab.model()), name="train")


def session_and_specs(seeds: int, epochs: int) -> tuple[Session, list[Spec]]:
    plugins = Plugins([(ToyPlugin(), ACME), (offering(slow=Slow), ACME)])
    specs = [
        make_spec(plugins, method="slow", dataset="toy", seed=seed, training={"epochs": epochs})
        for seed in range(seeds)
    ]
    return Session(plugins, data_root=Path(), device="cpu", progress=None), specs


def test_a_rehearsal_tells_the_time_of_a_run() -> None:
    session, (spec, *others) = session_and_specs(seeds=3, epochs=10)
    (item,) = plan(session, [spec, *others]).items
    session.run(spec)  # before the run that counts: it imports parts of torch
    record = session.run(others[0]).record
    assert record.cost is not None
    # steps wait for 2 s; a run is slower if the machine is busy, and never faster
    assert 2.0 < item.seconds < 1.25 * record.cost.wall_seconds
    assert (item.runs, item.records) == (3, 0)


def test_records_of_similar_runs_on_this_hardware_are_believed_before_a_rehearsal() -> None:
    session, specs = session_and_specs(seeds=5, epochs=1)
    done = [session.run(spec) for spec in specs[:3]]
    records = [(run.path, run.record) for run in done]
    (item,) = plan(session, specs[3:], records).items
    times = sorted(run.record.cost.wall_seconds for run in done if run.record.cost)
    assert (item.runs, item.records, item.seconds) == (2, 3, times[1])

    elsewhere = [
        (path, replace(record, provenance=replace(record.provenance, hardware="Other CPU")))
        for path, record in records
    ]
    (item,) = plan(session, specs[3:], elsewhere).items
    assert item.records == 0
    longer = make_spec(session.plugins, method="slow", dataset="toy", training={"epochs": 2})
    (item,) = plan(session, [longer], records).items
    assert item.records == 0


def item(**values: Any) -> Item:
    _, (spec,) = session_and_specs(seeds=1, epochs=1)
    known: dict[str, Any] = {
        "runs": 1, "seconds": 10.0, "memory": 5, "stored": 3, "unfinished": 7, "finished": 2,
    }  # fmt: skip
    return Item(spec, **{**known, **values})


def test_processes_share_the_time_as_far_as_there_are_cores() -> None:
    items = (item(runs=8), item(runs=2, seconds=60.0, memory=9, unfinished=11))
    assert Plan(items, "CPU").seconds == 200.0
    assert Plan(items, "CPU", processes=2, cores=2).seconds == 100.0
    assert Plan(items, "CPU", processes=10).seconds == 60.0  # not before the longest run ends
    assert Plan(items, "CPU", processes=4, cores=2).seconds == 120.0  # which has half a core
    found = Plan(items, "CPU", processes=2, together=3)
    assert (found.computing, found.memory, found.stored) == (200.0, 9, 30)
    assert found.unfinished == 11 * 6 + 20
    assert Plan((item(runs=10, finished=LIMIT),), "CPU").unfinished == 7 + LIMIT


def test_a_run_without_a_forecast_is_left_out_of_all_sums() -> None:
    items = (item(), item(seconds=float("nan"), memory=99, problem="no such file"))
    found = Plan(items, "CPU")
    assert (found.runs, found.seconds, found.memory) == (1, 10.0, 5)


def test_a_process_is_planned_with_the_threads_of_a_run() -> None:
    session, specs = session_and_specs(seeds=1, epochs=1)
    cores = len(os.sched_getaffinity(0))
    found = plan(session, specs, processes=3)
    assert found.cores == max(1, cores // torch.get_num_threads())
    assert plan(session, specs, shared=False).cores is None


def test_free_space_is_known_before_the_folder_is_made(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "not" / "yet") == pytest.approx(free_disk(tmp_path), rel=0.1)


def test_the_space_of_a_run_on_the_disk_is_bounded(plugins: Plugins) -> None:
    spec = make_spec(plugins, method="jtt", dataset="toy", training={"epochs": 3})
    session = Session(plugins, data_root=Path(), device="cpu", progress=None)
    (rehearsed,) = plan(session, [spec]).items
    run = session.run(spec)
    (recorded,) = plan(session, [spec], [(run.path, run.record)]).items
    stored = sum(file.stat().st_size for file in Path("results").glob("[!.]*"))
    stages = sum(file.stat().st_size for file in Path("results").rglob("finished"))
    assert recorded.stored == stored <= rehearsed.stored < 10 * stored
    assert 0 < stages <= recorded.finished <= 2 * rehearsed.finished < 20 * stages


def test_the_command_tells_the_plan_and_trains_nothing(debiasbench: Any) -> None:
    words = [*FAST.split(), "--seeds", "0-2"]
    told = debiasbench("compare", "erm", "upweight", *words, "--plan", "--jobs", 2)
    assert told.exit_code == 0, told.output
    assert told.stdout.startswith("6 runs, 0 of them done\n")
    assert told.stdout.count("a rehearsal") == 2
    assert "6 runs will take about" in told.stdout
    assert "2 processes on this machine" in told.stdout
    assert not list(Path().glob("results/*.json"))

    debiasbench("compare", "erm", *FAST.split(), "--seeds", "0-1")
    told = debiasbench("compare", "erm", *words, "--plan")
    assert told.stdout.startswith("3 runs, 2 of them done\n")
    assert "2 records" in told.stdout
    debiasbench("compare", "erm", *words)
    assert debiasbench("compare", "erm", *words, "--plan").stdout == "3 runs, all done\n"


def test_a_plan_for_a_cluster_has_as_many_processes_as_workers(debiasbench: Any) -> None:
    words = [*FAST.split(), "--seeds", "0-3", "--plan", "--workers", 2]
    told = debiasbench("compare", "erm", *words, "--on", "slurm", "--jobs", 2)
    assert told.exit_code == 0, told.output
    assert "4 processes in Slurm, each with hardware like that of this machine" in told.stdout
    assert "enough for" not in told.stdout
    told = debiasbench("compare", "erm", *words, "--on", "ray:127.0.0.1:6379")
    assert "2 processes on Ray" in told.stdout


def test_a_plan_needs_to_know_how_many_runs_are_trained_at_once(debiasbench: Any) -> None:
    told = debiasbench("compare", "erm", "--dataset", "toy", "--plan", "--together", "auto")
    assert told.exit_code == 2
    assert "--plan needs a number: give --together N instead of auto" in told.stderr

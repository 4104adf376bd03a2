"""Runs on a real Ray cluster of several raylets on this machine: what is lost is run again.

They need Ray, which the usual environment for tests does not have: see CONTRIBUTING.md.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from debiasbench.records.store import read_all

pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = pytest.mark.slow

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # the cluster lives as long as this file and is on this machine
    "RAY_raylet_start_wait_time_s": "180",
    "RAY_agent_register_timeout_ms": "120000",
}
# a node is taken for dead after 6 s instead of 65
QUICK = {
    "health_check_initial_delay_ms": 2000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}
# all nodes are on this machine: without the token, none knows that it shares the results folder
UNSHARED = """
import contextlib
from debiasbench.runs import on_ray
on_ray.RayPool.shared = lambda self: contextlib.nullcontext()
"""


class RealCluster:
    """A head without CPUs and nodes that tests add and lose."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK},
        )
        self._nodes: list[Any] = []

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, **resources: Any) -> Any:
        node = self.cluster.add_node(**{"num_cpus": 1, "include_dashboard": False, **resources})
        self._nodes.append(node)
        return node

    def kill(self, node: Any) -> None:
        """Kill a raylet, as if its computer had failed."""
        self._nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def clear(self) -> None:
        for node in list(self._nodes):
            raylet(node).send_signal(signal.SIGCONT)
            self.kill(node)


def raylet(node: Any) -> subprocess.Popen[bytes]:
    process: subprocess.Popen[bytes] = node.all_processes["raylet"][0].process
    return process


@pytest.fixture(scope="module")
def real_cluster() -> Iterator[RealCluster]:
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    try:
        cluster = RealCluster()
        yield cluster
        cluster.cluster.shutdown()
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def cluster(real_cluster: RealCluster) -> Iterator[RealCluster]:
    yield real_cluster
    real_cluster.clear()


class Sweep:
    """A `sweep` in a process of its own, with its output in files."""

    def __init__(self, folder: Path, *words: str, before: str = "", **environment: str) -> None:
        code = f"{before}\nfrom debiasbench.cli import main\nmain(prog_name='debiasbench')"
        folder.mkdir(exist_ok=True)
        self._folder = folder
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, "sweep", "--quiet", *words],
                stdout=out,
                stderr=err,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                start_new_session=True,
            )

    def __enter__(self) -> Sweep:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        return self._process.wait(timeout=280)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    @property
    def output(self) -> str:
        return "".join((self._folder / name).read_text() for name in ("stdout", "stderr"))

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 200
        while not condition():
            assert self._process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)


def suite(folder: Path, *, seeds: int, epochs: int = 2) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "suite.toml"
    file.write_text(
        f"""
        name = "s"
        description = "d"
        source = "s"
        [base]
        dataset = "digits"
        model = "mlp"
        "train.epochs" = {epochs}
        [grid]
        seed = {list(range(seeds))}
        [[runs]]
        method = "erm"
        """
    )
    return file


def content(folder: Path) -> dict[str, str]:
    """Return what each record says except for times, machine and memory."""
    found = {}
    for path, record in read_all([folder])[0]:
        assert record.id not in found
        assert record.predictions is not None
        assert path.with_name(record.predictions["file"]).exists()
        # as text, because NaN differs from NaN
        found[record.id] = repr((record.outcomes, record.predictions, record.curves))
    return found


def finished(folder: Path) -> int:
    return len(list(folder.glob("*.json")))


def on_ray(
    cluster: RealCluster, file: Path, folder: Path, *words: str, device: str = "cpu"
) -> list[str]:
    at = f"ray:{cluster.address}"
    return [str(file), "--results", str(folder), "--device", device, "--on", at, *words]


def test_records_are_those_of_a_local_sweep_although_two_of_three_nodes_are_lost(
    cluster: RealCluster, tmp_path: Path
) -> None:
    file, folder, here = suite(tmp_path, seeds=5, epochs=12), tmp_path / "ray", tmp_path / "here"
    nodes = [cluster.add() for _ in range(3)]
    with Sweep(tmp_path / "said", *on_ray(cluster, file, folder)) as sweep:
        sweep.until(lambda: finished(folder) >= 2)
        cluster.kill(nodes[0])
        sweep.until(lambda: finished(folder) >= 3)
        cluster.kill(nodes[1])
        assert sweep.wait() == 0, sweep.output
    assert "5 runs: 5 trained, 0 already done" in sweep.output
    with Sweep(tmp_path / "local", str(file), "--results", str(here), "--device", "cpu") as local:
        assert local.wait() == 0
    assert len(content(folder)) == 5
    assert content(folder) == content(here)


def parent(process: int) -> int:
    """Return the process that started a process."""
    text = Path(f"/proc/{process}/stat").read_text()
    return int(text.rpartition(")")[2].split()[1])


def slots() -> int:
    """Return the number of actors on this machine."""
    found = 0
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += b"ray::Slot" in file.read_bytes()
    return found


def claims(folder: Path) -> dict[str, int]:
    """Return the processes that hold the claims of runs."""
    found = {}
    for file in (folder / ".locks").glob("*.lock"):
        process = re.search(r"pid=(\d+)", file.read_text())
        if process is not None:
            found[file.stem] = int(process[1])
    return found


def test_a_killed_process_is_replaced_and_its_run_continues_from_its_checkpoint(
    cluster: RealCluster, tmp_path: Path
) -> None:
    file, folder = suite(tmp_path, seeds=2, epochs=20), tmp_path / "ray"
    cluster.add()
    with Sweep(tmp_path / "said", *on_ray(cluster, file, folder)) as sweep:
        sweep.until(lambda: bool(claims(folder)))
        (process,) = claims(folder).values()
        os.kill(process, signal.SIGKILL)
        sweep.until(lambda: finished(folder) == 1)
        sweep.until(lambda: bool(claims(folder)))
        (process,) = claims(folder).values()
        os.kill(parent(process), signal.SIGKILL)  # its actor
        assert sweep.wait() == 0, sweep.output
    assert "2 runs: 2 trained" in sweep.output
    assert finished(folder) == 2


def test_a_run_on_a_hung_node_is_trained_once(cluster: RealCluster, tmp_path: Path) -> None:
    file, folder = suite(tmp_path, seeds=2, epochs=60), tmp_path / "ray"
    node, _ = cluster.add(), cluster.add()
    with Sweep(tmp_path / "said", *on_ray(cluster, file, folder)) as sweep:
        sweep.until(lambda: len(claims(folder)) == 2)
        raylet(node).send_signal(signal.SIGSTOP)
        assert sweep.wait() == 0, sweep.output
    assert "2 runs: 2 trained" in sweep.output
    assert finished(folder) == 2


def test_records_come_back_from_nodes_without_the_results_folder(
    cluster: RealCluster, tmp_path: Path
) -> None:
    file, folder, here = suite(tmp_path, seeds=3), tmp_path / "ray", tmp_path / "here"
    scratch = tmp_path / "node"
    scratch.mkdir()
    cluster.add(env_vars={"TMPDIR": str(scratch)})
    words = on_ray(cluster, file, folder)
    with Sweep(tmp_path / "said", *words, before=UNSHARED) as sweep:
        assert sweep.wait() == 0, sweep.output
    assert "3 runs: 3 trained" in sweep.output
    assert "unbiased" in sweep.output  # the line of a run is made from its record
    with Sweep(tmp_path / "local", str(file), "--results", str(here), "--device", "cpu") as local:
        assert local.wait() == 0
    assert content(folder) == content(here)
    left = [path for path in scratch.rglob("*") if path.is_file()]
    assert left == []


def test_checkpoints_come_back_and_go_to_the_next_node(
    cluster: RealCluster, tmp_path: Path
) -> None:
    file, folder, here = suite(tmp_path, seeds=1, epochs=60), tmp_path / "ray", tmp_path / "here"
    first = cluster.add(env_vars={"TMPDIR": _made(tmp_path / "node1")})
    words = on_ray(cluster, file, folder, "--fetch-checkpoints", "1")
    with Sweep(tmp_path / "said", *words, before=UNSHARED) as sweep:
        sweep.until(lambda: any((folder / ".stages").glob("*/running")))
        cluster.kill(first)
        cluster.add(env_vars={"TMPDIR": _made(tmp_path / "node2")})
        sweep.until(lambda: any((tmp_path / "node2").rglob("running")))
        time.sleep(0.3)  # the time is set after the file is there
        (came,) = (tmp_path / "node2").rglob("running")
        begun = time.time() - came.stat().st_mtime  # the file has the time of the first node
        assert sweep.wait() == 0, sweep.output
    assert begun > 1
    with Sweep(tmp_path / "local", str(file), "--results", str(here), "--device", "cpu") as local:
        assert local.wait() == 0
    assert content(folder) == content(here)
    assert not any((folder / ".stages").glob("*/*"))


def _made(folder: Path) -> str:
    folder.mkdir()
    return str(folder)


def test_ctrl_c_stops_all_runs_with_checkpoints_and_a_local_sweep_continues_them(
    cluster: RealCluster, tmp_path: Path
) -> None:
    file, folder = suite(tmp_path, seeds=3, epochs=30), tmp_path / "ray"
    cluster.add(num_cpus=2)
    with Sweep(tmp_path / "said", *on_ray(cluster, file, folder)) as sweep:
        sweep.until(lambda: finished(folder) == 1)
        sweep.signal(signal.SIGINT)
        assert sweep.wait() == 75, sweep.output
    assert "Interrupted. The records of finished runs are stored" in sweep.output
    assert "Traceback" not in sweep.output
    assert any((folder / ".stages").glob("*/running"))
    assert not claims(folder)
    with Sweep(tmp_path / "local", str(file), "--results", str(folder), "--device", "cpu") as local:
        assert local.wait() == 0
    assert finished(folder) == 3


def test_four_runs_share_a_gpu(cluster: RealCluster, tmp_path: Path) -> None:
    file, folder = suite(tmp_path, seeds=4, epochs=4), tmp_path / "ray"
    cluster.add(num_cpus=1, num_gpus=1)  # Ray counts it, and no run uses it
    parts = ["--gpus-per-run", "0.25", "--cpus-per-run", "0.25"]
    words = on_ray(cluster, file, folder, *parts, device="auto")  # a node says the precision
    with Sweep(tmp_path / "said", *words) as sweep:
        sweep.until(lambda: slots() == 4)
        assert sweep.wait() == 0, sweep.output
    assert finished(folder) == 4


def test_a_request_that_no_node_can_meet_is_refused_in_one_line(
    cluster: RealCluster, tmp_path: Path
) -> None:
    cluster.add()
    file = suite(tmp_path, seeds=1)
    words = on_ray(cluster, file, tmp_path / "ray", "--gpus-per-run", "0.5")
    with Sweep(tmp_path / "said", *words) as sweep:
        assert sweep.wait() == 2
    assert sweep.output == (
        "Error: No node of the cluster (2 nodes) can give 1 CPU, 0.5 GPUs to a run: the largest "
        "has 0 GPUs. Change --cpus-per-run, --gpus-per-run or --memory-per-run\n"
    )


def test_an_address_without_a_cluster_is_refused_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    begun = time.monotonic()
    words = [str(suite(tmp_path, seeds=1)), "--device", "cpu", "--on", f"ray:{address}"]
    with Sweep(tmp_path / "said", *words, "--results", str(tmp_path / "ray")) as sweep:
        assert sweep.wait() == 2
    assert sweep.output == (
        f"Error: There is no Ray cluster at {address} (connection refused): start one with "
        "`ray start --head`, or correct the address after --on ray:\n"
    )
    assert time.monotonic() - begun < 60  # most of it are imports

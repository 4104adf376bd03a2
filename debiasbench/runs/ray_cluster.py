"""`joined`: start Ray on this machine or join a cluster, and what its nodes have room for."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import OptionError
from debiasbench.common.wording import counted, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # on a busy machine or a slow home, Ray gives up too early
    "RAY_raylet_start_wait_time_s": "180",
    "RAY_agent_register_timeout_ms": "120000",
}
CONNECT = 10.0  # seconds
# what a client of HTTP/2, such as that of gRPC, sends first: its preface and empty settings
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@dataclass(frozen=True)
class Request:
    """What each process of a command needs; `memory` in bytes."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} CPU" + ("" if self.cpus == 1 else "s")]
        parts += [f"{self.gpus:g} GPU" + ("" if self.gpus == 1 else "s")] if self.gpus else []
        parts += [f"{self.memory / 1e9:g} GB of memory"] if self.memory else []
        return ", ".join(parts)

    def options(self) -> dict[str, Any]:
        """Return the request as options of an actor."""
        asked: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        return asked | ({"memory": self.memory} if self.memory else {})

    def fit(self, node: Mapping[str, float]) -> int:
        """Return how many such processes a node has room for."""
        rooms = [int(node.get("CPU", 0.0) / self.cpus + 1e-6)]
        if self.gpus:
            there, each = int(node.get("GPU", 0.0)), self.gpus
            # several share one GPU, but none takes parts of two
            rooms.append(int(there / each) if each >= 1 else there * int(1 / each + 1e-6))
        if self.memory:
            rooms.append(int(node.get("memory", 0.0) / self.memory))
        return min(rooms)


class Cluster:
    """A cluster that this process has joined."""

    def __init__(self, ray: ModuleType, address: str | None) -> None:
        self.ray, self.address = ray, address

    def nodes(self) -> list[dict[str, float]]:
        """Return the resources of each node that runs."""
        return [dict(node["Resources"]) for node in self.ray.nodes() if node["Alive"]]

    def has_gpus(self) -> bool:
        """Return whether any node has a GPU."""
        return any(node.get("GPU", 0) > 0 for node in self.nodes())

    def slots(self, request: Request) -> int:
        """Return how many processes with this request the nodes have room for."""
        return sum(request.fit(node) for node in self.nodes())

    def check(self, request: Request) -> None:
        """Raise `OptionError` if no node can ever meet the request: Ray would wait in silence."""
        nodes = self.nodes()
        if any(request.fit(node) for node in nodes):
            return
        names = {"CPU": "CPUs", "GPU": "GPUs", "memory": "bytes of memory"}
        most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in names}
        asked = {"CPU": request.cpus, "GPU": request.gpus, "memory": request.memory}
        parts = [
            f"{most[name]:g} {names[name]}" for name, amount in asked.items() if amount > most[name]
        ]
        largest = f": the largest has {' and '.join(parts)}" if parts else " at once"
        raise OptionError(
            f"No node of the cluster ({counted(len(nodes), 'node')}) can give {request} to a "
            f"run{largest}. Change --cpus-per-run, --gpus-per-run or --memory-per-run"
        )


@contextmanager
def joined(address: str | None) -> Iterator[Cluster]:
    """Join the cluster at an address inside the context; None starts Ray on this machine.

    RAY_ADDRESS, if set, takes the place of None. Raises `OptionError` if there is no cluster, or if
    Ray is not installed.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    own = ENVIRONMENT if address else {**ENVIRONMENT, "RAY_AUTH_MODE": "token"}
    for name, value in own.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise OptionError(
            '--on ray needs Ray, which is not installed: pip install "debiasbench[ray]"'
        ) from error
    if address is not None:
        _check_address(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        _start(ray, address)
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray replaces it
    with suppress(AttributeError):
        # it would print on stdout, among tables, that a process or node was lost
        ray._private.worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield Cluster(ray, address)
    finally:
        ray.shutdown()


def _start(ray: ModuleType, address: str | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        quiet |= {"include_dashboard": False, "address": "local", **_own_folder()}
    for tries_left in (1, 0):
        try:
            ray.init(**{"address": address, **quiet})
        except Exception as error:  # of many types
            ray.shutdown()
            if tries_left and address is None:  # a busy machine
                continue
            where = "Ray did not start" if address is None else f"Cannot join Ray at {address}"
            reason = shortened(" ".join(str(error).split()))
            advice = (
                "see https://docs.ray.io/en/latest/ray-core/starting-ray.html"
                if address is None
                else "the command must be given on a node of the cluster, with its version of Ray"
            )
            raise OptionError(f"{where} ({reason}): {advice}") from error
        else:
            return


def _own_folder() -> dict[str, str]:
    """Return a folder for Ray inside a Slurm job: several jobs on a node would use one."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return {}
    base = tempfile.gettempdir()
    # paths of sockets below it have at most 107 characters
    return {"_temp_dir": str(Path(base if len(base) < 30 else "/tmp", f"ray-{job}"))}


def _check_address(address: str) -> None:
    """Raise `OptionError` unless something like a Ray cluster answers; Ray waits for minutes."""
    if address in {"auto", "local"}:
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        raise OptionError(
            f"{address!r} is not the address of a Ray cluster, such as 10.0.0.1:6379: "
            "use --on ray:HOST:PORT"
        )
    problem = ""
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "1":
                connection.sendall(GREETING)
                answer = connection.recv(9)
                # the server sends its settings first
                problem = "" if answer[3:4] == b"\x04" else "what answers there is not Ray"
    except (OSError, OverflowError) as error:
        problem = (getattr(error, "strerror", None) or str(error) or "no answer").lower()
    if problem:
        raise OptionError(
            f"There is no Ray cluster at {address} ({problem}): start one with "
            "`ray start --head`, or correct the address after --on ray:"
        )

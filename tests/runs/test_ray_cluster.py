"""What a run asks of a cluster, and what is no cluster; without Ray."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from threading import Thread
from types import SimpleNamespace
from typing import Any, cast

import pytest

from debiasbench.common.errors import OptionError
from debiasbench.runs.ray_cluster import Cluster, Request, _check_address, joined


@pytest.mark.parametrize(
    ("request_", "node", "number"),
    [
        (Request(1), {"CPU": 4.0}, 4),
        (Request(3), {"CPU": 4.0}, 1),
        (Request(0.1), {"CPU": 1.0}, 10),
        (Request(1, 0.25), {"CPU": 16.0, "GPU": 2.0}, 8),
        (Request(1, 0.25), {"CPU": 3.0, "GPU": 2.0}, 3),
        (Request(1, 0.3), {"CPU": 16.0, "GPU": 2.0}, 6),  # three on each, and none on both
        (Request(1, 2), {"CPU": 16.0, "GPU": 5.0}, 2),
        (Request(1, 1), {"CPU": 16.0}, 0),
        (Request(1, 0, 10**9), {"CPU": 16.0, "memory": 3.5e9}, 3),
        (Request(1), {}, 0),  # the head of a cluster often runs nothing
    ],
)
def test_a_node_has_room_for_processes(
    request_: Request, node: dict[str, float], number: int
) -> None:
    assert request_.fit(node) == number


def cluster(*nodes: dict[str, float]) -> Cluster:
    states = [{"Alive": True, "Resources": node} for node in nodes]
    states.append({"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}})
    return Cluster(cast(Any, SimpleNamespace(nodes=lambda: states)), None)


def test_a_request_must_fit_into_one_node() -> None:
    two = cluster({"CPU": 4.0, "memory": 8e9}, {"CPU": 2.0, "GPU": 1.0, "memory": 4e9})
    two.check(Request(2, 1))
    assert two.slots(Request(1)) == 6
    with pytest.raises(OptionError) as error:
        two.check(Request(6))
    assert str(error.value) == (
        "No node of the cluster (2 nodes) can give 6 CPUs to a run: the largest has 4 CPUs. "
        "Change --cpus-per-run, --gpus-per-run or --memory-per-run"
    )
    with pytest.raises(OptionError, match="can give 3 CPUs, 1 GPU to a run at once"):
        two.check(Request(3, 1))


@pytest.fixture
def answering() -> Iterator[tuple[int, list[bytes]]]:
    """Return the port of a server that sends what the list holds to each client."""
    answers: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.recv(100)
                    client.sendall(answers[0])

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], answers
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_an_address_where_nothing_or_something_else_answers_is_refused_at_once(
    answering: tuple[int, list[bytes]],
) -> None:
    port, answers = answering
    begun = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as unused:
        free = unused.getsockname()[1]
    with pytest.raises(OptionError, match=f"no Ray cluster at 127.0.0.1:{free} .connection refu"):
        _check_address(f"127.0.0.1:{free}")
    answers.append(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(OptionError, match="what answers there is not Ray"):
        _check_address(f"127.0.0.1:{port}")
    answers[0] = bytes([0, 0, 12, 4, 0, 0, 0, 0, 0, *range(12)])  # the settings of a gRPC server
    _check_address(f"127.0.0.1:{port}")
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "address", ["localhost", "10.0.0.1:", "ray://10.0.0.1:10001", "10.0.0.1:port", "h:99999999"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(OptionError, match=r"10\.0\.0\.1:6379|no Ray cluster"):
        _check_address(address)


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_AUTH_MODE"):  # both are removed afterwards
        monkeypatch.setenv(name, "0")
    with pytest.raises(OptionError, match=r'pip install "debiasbench\[ray\]"'), joined(None):
        pass

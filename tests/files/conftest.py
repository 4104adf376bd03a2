"""Fixtures of the download tests: a local server, no network and no waiting."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from debiasbench.files import transfer
from tests.files.server import Site


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def no_network_and_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo

    def local_only(host: Any, *args: Any, **more: Any) -> Any:
        assert host == "127.0.0.1", f"a test connects to {host}"
        return look_up(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", local_only)
    monkeypatch.setattr(transfer, "PAUSES", (0.0, 0.0))
    # a proxy that does not exist: any request to it fails
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

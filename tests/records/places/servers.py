"""Places for tests: a folder, memory, a shared disk that fsspec knows, and a real S3 server."""

from __future__ import annotations

import importlib.util
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

KINDS = ("folder", "memory", "shared", "s3")
MISSING = [name for name in ("moto", "s3fs") if importlib.util.find_spec(name) is None]


class Shared(LocalFileSystem):
    """A disk behind a protocol of its own, which shows files while they are written."""

    protocol = "shared"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:  # older versions of fsspec only know file://
        return str(super()._strip_protocol(path.removeprefix("shared://")))


fsspec.register_implementation("shared", Shared, clobber=True)


@dataclass
class S3:
    """A server with a bucket `records`, and its address."""

    address: str
    server: Any

    def need_permission(self, needed: bool) -> None:
        """Refuse every request from now on, or none."""
        self._post("reset-auth", b"0" if needed else b"inf")

    def _post(self, path: str, data: bytes) -> None:
        url, kind = f"{self.address}/moto-api/{path}", {"Content-Type": "text/plain"}
        request = urllib.request.Request(url, data, kind, method="POST")
        urllib.request.urlopen(request).close()


@contextmanager
def s3() -> Iterator[S3]:
    """Run an S3 server in this process; the environment leads s3fs to it."""
    if MISSING:
        pytest.skip(f"{' and '.join(MISSING)} not installed: pip install s3fs 'moto[server]'")
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", address)
        fs = fsspec.filesystem("s3", skip_instance_cache=True)
        fs.makedirs("records", exist_ok=True)  # all servers of a process share their buckets
        yield S3(address, server)
    server.stop()


def url(kind: str, folder: Path) -> str:
    """Return the name of a new place of a kind."""
    own = uuid4().hex
    return {
        "folder": str(folder / own),
        "memory": f"memory://{own}",
        "shared": f"shared://{folder / own}",
        "s3": f"s3://records/{own}",
    }[kind]


def contents(place: str) -> dict[str, bytes]:
    """Return all files of a place, hidden ones too, by their names from the place on."""
    fs, root = fsspec.url_to_fs(place, use_listings_cache=False, skip_instance_cache=True)
    found = fs.find(root) if fs.exists(root) else []
    return {os.path.relpath(name, root): fs.cat_file(name) for name in found}


def put(place: str, name: str, content: bytes) -> None:
    """Write a file of a place."""
    fs, root = fsspec.url_to_fs(place, use_listings_cache=False, skip_instance_cache=True)
    path = f"{root.rstrip('/')}/{name}"
    if "s3" not in fs.protocol:
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    fs.pipe_file(path, content)

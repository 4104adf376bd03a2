"""A local web server for download tests, and helpers to declare and inspect downloads."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections import namedtuple
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from debiasbench.common.progress import Progress
from debiasbench.core.download import Download

CONTENT = bytes(i % 251 for i in range(5000))
OTHER = bytes(i % 241 for i in range(5000))
PAGE = b"\n<!DOCTYPE html><title>Sign in</title>"
Usage = namedtuple("Usage", "total used free")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Reply:
    """How the server answers requests for one path."""

    content: bytes = CONTENT
    status: int = 200
    ranges: bool = True
    etag: str | None = None
    kind: str = "application/octet-stream"
    length: bool = True
    most: list[int] = field(default_factory=list)
    """Number of bytes after which the connection is dropped, for one request each."""
    always: int | None = None
    """The same number for every request."""
    to: str | None = None
    """Where the server redirects to."""
    false_range: str | None = None
    """A Content-Range header that does not match the request."""
    hold: threading.Event | None = None
    """The body is sent only after this event."""


@dataclass
class Request:
    path: str
    range: str | None
    if_range: str | None
    sent: int = 0


class Site:
    """A local server with its answers and a list of the requests it received."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.requests: list[Request] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                request = Request(self.path, self.headers["Range"], self.headers["If-Range"])
                site.requests.append(request)
                site.answer(self, request, site.replies.get(self.path, Reply(status=404)))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = False  # closing the server waits for its threads
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def serve(self, path: str, reply: Reply | None = None, **more: Any) -> str:
        self.replies[path] = reply or Reply(**more)
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def answer(self, to: BaseHTTPRequestHandler, request: Request, reply: Reply) -> None:
        start, status = 0, reply.status
        same = request.if_range is None or request.if_range == reply.etag
        if request.range and reply.ranges and same and status == 200:
            start = int(request.range.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(reply.content) else 416
        to.send_response(status)
        size = len(reply.content)
        body = reply.content[start:] if status in (200, 206) else b""
        if status == 206:
            to.send_header("Content-Range", reply.false_range or f"bytes {start}-{size - 1}/{size}")
        if status == 416:
            to.send_header("Content-Range", f"bytes */{size}")
        if reply.to is not None:
            to.send_header("Location", reply.to)
        if reply.etag is not None:
            to.send_header("ETag", reply.etag)
        if reply.length:
            to.send_header("Content-Length", str(len(body)))
        to.send_header("Content-Type", reply.kind)
        to.end_headers()
        if reply.hold is not None:
            reply.hold.wait(5)
        most = reply.most.pop(0) if reply.most else reply.always
        with suppress(OSError):  # the client closed the connection
            request.sent = to.wfile.write(body[:most])

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def one(*urls: str, content: bytes | None = CONTENT, **more: Any) -> Download:
    """Declare a file `sub/data.bin` with the digest of `content`."""
    known = None if content is None else digest(content)
    return Download(**{"path": "sub/data.bin", "urls": urls, "sha256": known, **more})


def tree(root: Path) -> set[str]:
    """Return the names of all files and folders except the locks."""
    names = {str(path.relative_to(root)) for path in root.rglob("*")}
    return {name for name in names if not name.startswith(".locks")}


def left_over(root: Path, content: bytes) -> None:
    """Leave a partial file as an interrupted call does, without a note of its version."""
    (root / "sub").mkdir()
    (root / "sub" / "data.bin.part").write_bytes(content)


class Watched(Progress):
    """Records what a progress bar would show."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int | None]] = []
        self.counted = 0
        self.open = 0

    def start(self, name: str, total: int | None) -> None:
        self.started.append((name, total))
        self.open, self.counted = self.open + 1, 0

    def advance(self, count: int = 1) -> None:
        self.counted += count

    def finish(self) -> None:
        self.open -= 1


def disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, free))

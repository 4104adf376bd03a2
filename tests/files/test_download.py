"""Fetching: every way a source can fail, and every archive that must not be unpacked."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import socket
import stat
import tarfile
import threading
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from debiasbench.common.errors import DataError
from debiasbench.datasets._sources import CIFAR10, MNIST
from debiasbench.datasets.cmnist import CMNIST
from debiasbench.files import download as module
from debiasbench.files.download import Download, fetch

CONTENT = bytes(i % 251 for i in range(5000))
OTHER = bytes(i % 241 for i in range(5000))
PAGE = b"\n<!DOCTYPE html><title>Sign in</title>"
Usage = namedtuple("Usage", "total used free")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Reply:
    """What the server says to requests of one path."""

    content: bytes = CONTENT
    status: int = 200
    ranges: bool = True
    etag: str | None = None
    kind: str = "application/octet-stream"
    length: bool = True
    most: list[int] = field(default_factory=list)
    """Bytes after which the connection is dropped, one for each request that is."""
    always: int | None = None
    """The same, for every request."""
    to: str | None = None
    lies: str | None = None
    """A Content-Range that is not the one asked for."""
    hold: threading.Event | None = None
    """What the body waits for."""


@dataclass
class Asked:
    path: str
    range: str | None
    if_range: str | None
    sent: int = 0


class Site:
    """A server on this machine, what it answers, and what it was asked."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.asked: list[Asked] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = Asked(self.path, self.headers["Range"], self.headers["If-Range"])
                site.asked.append(asked)
                site.answer(self, asked, site.replies.get(self.path, Reply(status=404)))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = False  # so that closing it waits for them
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def serve(self, path: str, reply: Reply | None = None, **more: Any) -> str:
        self.replies[path] = reply or Reply(**more)
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def answer(self, to: BaseHTTPRequestHandler, asked: Asked, reply: Reply) -> None:
        start, status = 0, reply.status
        same = asked.if_range is None or asked.if_range == reply.etag
        if asked.range and reply.ranges and same and status == 200:
            start = int(asked.range.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(reply.content) else 416
        to.send_response(status)
        size = len(reply.content)
        body = reply.content[start:] if status in (200, 206) else b""
        if status == 206:
            to.send_header("Content-Range", reply.lies or f"bytes {start}-{size - 1}/{size}")
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
        with suppress(OSError):  # whoever asked has seen enough
            asked.sent = to.wfile.write(body[:most])

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture(autouse=True)
def no_network_and_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo

    def only_here(host: Any, *args: Any, **more: Any) -> Any:
        assert host == "127.0.0.1", f"a test asks for {host}"
        return look_up(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", only_here)
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))
    # a proxy that is not there: whatever asks it fails
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def one(*urls: str, content: bytes | None = CONTENT, **more: Any) -> Download:
    """A file `sub/data.bin`; `content`: what its digest is of."""
    known = None if content is None else digest(content)
    return Download(**{"path": "sub/data.bin", "urls": urls, "sha256": known, **more})


def tree(root: Path) -> set[str]:
    """Every file and folder but the locks."""
    names = {str(path.relative_to(root)) for path in root.rglob("*")}
    return {name for name in names if not name.startswith(".locks")}


# ---- a file


@pytest.mark.parametrize("length", [True, False])
def test_a_file_arrives_whole_with_nothing_beside_it(
    site: Site, tmp_path: Path, length: bool
) -> None:
    brought = fetch([one(site.serve("/x", length=length, etag='"1"'))], tmp_path)
    assert brought == (tmp_path / "sub" / "data.bin",)
    assert brought[0].read_bytes() == CONTENT
    assert tree(tmp_path) == {"sub", "sub/data.bin"}


def test_what_is_there_is_not_asked_for_and_nothing_is_written(site: Site, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data.bin").write_bytes(b"as the user put it")
    assert fetch([one(site.serve("/x"))], tmp_path) == ()
    assert site.asked == []
    assert not (tmp_path / ".locks").exists()


def test_a_dropped_connection_goes_on_where_it_ended(site: Site, tmp_path: Path) -> None:
    fetch([one(site.serve("/x", most=[2000, 1000]))], tmp_path)
    assert [a.range for a in site.asked] == [None, "bytes=2000-", "bytes=3000-"]
    assert [a.sent for a in site.asked] == [2000, 1000, 2000]
    assert (tmp_path / "sub" / "data.bin").read_bytes() == CONTENT


def test_a_later_call_goes_on_where_a_killed_one_ended(site: Site, tmp_path: Path) -> None:
    reply = Reply(always=2000, ranges=False, etag='"1"')
    download = one(site.serve("/x", reply), content=None)
    with pytest.raises(DataError, match="ended after 2,000 of 5,000 bytes"):
        fetch([download], tmp_path)
    reply.always, reply.ranges = None, True
    fetch([download], tmp_path)
    assert (site.asked[-1].range, site.asked[-1].if_range) == ("bytes=2000-", '"1"')
    assert site.asked[-1].sent == 3000
    assert (tmp_path / "sub" / "data.bin").read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_not_mixed_of_two(site: Site, tmp_path: Path) -> None:
    old = Reply(content=OTHER, etag='"1"', most=[2000, 0, 0])
    download = one(site.serve("/x", old), content=None)
    with pytest.raises(DataError):
        fetch([download], tmp_path)
    site.serve("/x", content=CONTENT, etag='"2"')
    fetch([download], tmp_path)
    assert (site.asked[-1].range, site.asked[-1].if_range) == ("bytes=2000-", '"1"')
    assert (tmp_path / "sub" / "data.bin").read_bytes() == CONTENT


def left_over(root: Path, content: bytes) -> None:
    """Leave what a killed call leaves, without a note of its version."""
    (root / "sub").mkdir()
    (root / "sub" / "data.bin.part").write_bytes(content)


def test_without_a_digest_bytes_of_an_unknown_version_are_not_kept(
    site: Site, tmp_path: Path
) -> None:
    left_over(tmp_path, OTHER[:2000])
    fetch([one(site.serve("/x"), content=None)], tmp_path)
    assert [a.range for a in site.asked] == [None]
    assert (tmp_path / "sub" / "data.bin").read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_is_read_from_the_start(site: Site, tmp_path: Path) -> None:
    left_over(tmp_path, CONTENT[:2000])
    fetch([one(site.serve("/x", ranges=False))], tmp_path)
    assert [(a.range, a.sent) for a in site.asked] == [("bytes=2000-", 5000)]
    assert (tmp_path / "sub" / "data.bin").read_bytes() == CONTENT


def test_another_range_than_the_one_asked_for_is_not_joined(site: Site, tmp_path: Path) -> None:
    left_over(tmp_path, CONTENT[:2000])
    fetch([one(site.serve("/x", lies="bytes 1000-4999/5000"))], tmp_path)
    assert [a.range for a in site.asked] == ["bytes=2000-", None]


def test_a_beginning_that_is_already_all_is_only_checked(site: Site, tmp_path: Path) -> None:
    left_over(tmp_path, CONTENT)
    fetch([one(site.serve("/x"))], tmp_path)
    assert [(a.range, a.sent) for a in site.asked] == [("bytes=5000-", 0)]
    assert tree(tmp_path) == {"sub", "sub/data.bin"}


@pytest.mark.parametrize(
    "wrong", [OTHER[:2000], OTHER, OTHER * 2], ids=["shorter", "as long", "longer"]
)
def test_a_beginning_of_another_file_is_thrown_away(
    site: Site, tmp_path: Path, wrong: bytes
) -> None:
    left_over(tmp_path, wrong)
    fetch([one(site.serve("/x"))], tmp_path)
    assert [a.range for a in site.asked] == [f"bytes={len(wrong)}-", None]
    assert (tmp_path / "sub" / "data.bin").read_bytes() == CONTENT


def test_a_web_page_in_between_costs_nothing_that_came_before(site: Site, tmp_path: Path) -> None:
    left_over(tmp_path, CONTENT[:2000])
    with pytest.raises(DataError, match="a web page"):
        fetch([one(site.serve("/x", content=PAGE, ranges=False))], tmp_path)
    assert (tmp_path / "sub" / "data.bin.part").read_bytes() == CONTENT[:2000]


def test_a_rest_that_happens_to_begin_like_a_page_is_no_page(site: Site, tmp_path: Path) -> None:
    content = CONTENT[:2000] + PAGE
    left_over(tmp_path, content[:2000])
    fetch([one(site.serve("/x", content=content), content=content)], tmp_path)
    assert (tmp_path / "sub" / "data.bin").read_bytes() == content


def test_a_slow_road_is_walked_to_its_end_as_long_as_it_leads_on(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 500)
    fetch([one(site.serve("/x", always=500))], tmp_path)
    assert len(site.asked) == 10


# ---- sources


FAILURES = {
    "answered 404 Not Found": (Reply(status=404), 1),
    "answered 503 Service Unavailable": (Reply(status=503), 3),
    "answered 204 No Content": (Reply(status=204), 1),
    "sent a web page and no file": (Reply(content=b"Log in", kind="text/html; charset=utf-8"), 1),
    "sent a web page and no": (Reply(content=PAGE), 1),
    "redirect to http://example.org/x": (Reply(status=302, to="http://example.org/x"), 1),
    "ended after 10 of 5,000 bytes": (Reply(always=10, ranges=False), 3),
    "ended after 20 of 5,000 bytes": (
        Reply(content=CONTENT[:20], length=False, ranges=False),
        3,
    ),
    "has 4,000 bytes instead of 5,000": (Reply(content=CONTENT[:4000]), 1),
    "sent 6,000 bytes instead of 5,000": (Reply(content=CONTENT + bytes(1000), length=False), 1),
    f"has SHA-256 {digest(OTHER)} instead of {digest(CONTENT)}": (Reply(content=OTHER), 1),
}


@pytest.mark.parametrize(("reason", "failure"), FAILURES.items(), ids=list(FAILURES))
def test_a_source_that_fails_is_named_with_its_reason_and_the_next_is_used(
    site: Site, tmp_path: Path, reason: str, failure: tuple[Reply, int]
) -> None:
    reply, attempts = failure
    bad, good = site.serve("/bad", reply), site.serve("/good")
    with pytest.raises(DataError) as error:
        fetch([one(bad, size=5000)], tmp_path / "alone")
    assert f"{bad} " in str(error.value)
    assert reason in str(error.value)
    assert len(site.asked) == attempts
    fetch([one(bad, good, size=5000)], tmp_path)
    assert (tmp_path / "sub" / "data.bin").read_bytes() == CONTENT


def test_a_source_that_falls_silent_is_given_up(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    wait = threading.Event()
    silent, good = site.serve("/silent", hold=wait), site.serve("/good")
    fetch([one(silent, good)], tmp_path)
    wait.set()
    assert [a.path for a in site.asked] == ["/silent"] * 3 + ["/good"]


def test_an_empty_answer_is_no_file(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sent 0 bytes"):
        fetch([one(site.serve("/x", content=b""), content=None)], tmp_path)
    assert tree(tmp_path) == {"sub"}


def test_a_page_that_is_meant_to_be_one_is_taken(site: Site, tmp_path: Path) -> None:
    url = site.serve("/x", content=PAGE, kind="text/html")
    fetch([Download("readme.html", (url,))], tmp_path)
    assert (tmp_path / "readme.html").read_bytes() == PAGE


def test_a_file_that_nobody_has_is_asked_of_the_user_with_all_that_is_missing(
    site: Site, tmp_path: Path
) -> None:
    first, second = site.serve("/a", status=403), site.serve("/b", status=404)
    downloads = [one(first, second), one(path="sub/more.bin"), one(path="sub/rest.bin")]
    with pytest.raises(DataError) as error:
        fetch(downloads, tmp_path)
    assert str(error.value) == (
        f"Could not fetch sub/data.bin: {first} answered 403 Forbidden; {second} answered 404 Not "
        f"Found. Get it by other means, put it at {tmp_path}/sub/data.bin and run this again. "
        "Missing as well: sub/more.bin, sub/rest.bin"
    )


def test_a_wrong_file_leaves_nothing(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="instead of"):
        fetch([one(site.serve("/x", content=OTHER))], tmp_path)
    assert tree(tmp_path) == {"sub"}


def test_a_closed_port_is_said_to_be_out_of_reach(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DataError, match=r"could not be reached \(Connection refused\)"):
        fetch([one(f"http://127.0.0.1:{port}/x")], tmp_path)


def test_a_file_of_this_machine_is_a_source_too(tmp_path: Path) -> None:
    (tmp_path / "mirror").write_bytes(CONTENT)
    fetch([one((tmp_path / "mirror").as_uri())], tmp_path / "root")
    assert (tmp_path / "root" / "sub" / "data.bin").read_bytes() == CONTENT


def test_a_root_that_cannot_be_written_is_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file")
    with pytest.raises(DataError, match=r"Cannot write .*root.*Choose a folder with --data-root"):
        fetch([one(site.serve("/x"))], tmp_path / "root")


class Watched:
    """Keeps what a progress bar would show."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int | None]] = []
        self.counted = 0
        self.open = 0

    def start(self, what: str, total: int | None) -> None:
        self.told.append((what, total))
        self.open, self.counted = self.open + 1, 0

    def advance(self, count: int) -> None:
        self.counted += count

    def finish(self) -> None:
        self.open -= 1


def test_progress_counts_every_byte_of_the_file_and_of_its_content(
    site: Site, tmp_path: Path
) -> None:
    progress = Watched()
    left_over(tmp_path, CONTENT[:2000])
    fetch([one(site.serve("/x"))], tmp_path, progress=progress)
    assert (progress.told, progress.counted) == ([("sub/data.bin", 5000)], 5000)
    packed = gzip.compress(CONTENT)
    fetch([Download("a.gz", (site.serve("/y", content=packed),), unpack="gz")], tmp_path,
          progress=progress)  # fmt: skip
    assert progress.told[1:] == [("a.gz", len(packed)), ("unpacking a.gz", None)]
    assert (progress.counted, progress.open) == (5000, 0)


def test_two_at_once_fetch_once(site: Site, tmp_path: Path) -> None:
    wait = threading.Event()
    download = one(site.serve("/x", hold=wait))

    class Second(Watched):
        def start(self, what: str, total: int | None) -> None:
            super().start(what, total)
            wait.set()  # only once it is seen to wait does the first get its bytes

    second = Second()
    brought = []
    first = threading.Thread(target=lambda: brought.append(fetch([download], tmp_path)))
    first.start()
    while not site.asked:
        pass
    assert fetch([download], tmp_path, progress=second) == ()
    first.join()
    assert brought == [(tmp_path / "sub" / "data.bin",)]
    assert len(site.asked) == 1
    assert second.told == [("sub/data.bin, which another process fetches", None)]


# ---- disk space


def disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, free))


def test_a_file_that_does_not_fit_is_not_even_asked_for(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, 4999)
    with pytest.raises(DataError, match=r"data.bin needs 5,000 bytes in .*, where 4,999 bytes are"):
        fetch([one(site.serve("/x"), size=5000)], tmp_path)
    assert site.asked == []
    disk(monkeypatch, 5000)
    assert fetch([one(site.serve("/x"), size=5000)], tmp_path)


def test_a_size_that_only_the_server_knows_is_checked_before_a_byte_is_written(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, 4999)
    with pytest.raises(DataError, match="needs 5,000 bytes"):
        fetch([one(site.serve("/x"))], tmp_path)
    assert tree(tmp_path) == {"sub"}


def test_bytes_that_are_there_need_no_room_again(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, 3000)
    left_over(tmp_path, CONTENT[:2000])
    assert fetch([one(site.serve("/x"), size=5000)], tmp_path)


def test_what_an_archive_holds_needs_room_as_well(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, 6999)
    packed = Download("a.gz", ("https://127.0.0.1/",), unpack="gz", size=2000, unpacked=5000)
    with pytest.raises(DataError, match="needs 7,000 bytes"):
        fetch([packed], tmp_path)


def test_an_archive_of_unknown_content_is_taken_to_hold_no_less_than_itself(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, 3999)
    with pytest.raises(DataError, match="needs 4,000 bytes"):
        fetch([archive("https://127.0.0.1/", size=2000)], tmp_path)


@pytest.mark.parametrize(
    ("size", "text"), [(10**10, "10.0 GB"), (2_500_000, "2.5 MB"), (999_999, "999,999 bytes")]
)
def test_sizes_are_printed_with_a_unit_that_suits_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, text: str
) -> None:
    disk(monkeypatch, 0)
    with pytest.raises(DataError, match=f"needs {text} in"):
        fetch([one("https://127.0.0.1/", size=size)], tmp_path)


# ---- archives


def tar_of(*members: tuple[str, bytes | tuple[bytes, str]]) -> bytes:
    """A tar.gz; a member's content is bytes, or a type and where it links to."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, what in members:
            info = tarfile.TarInfo(name)
            content = b""
            if isinstance(what, bytes):
                content, info.size = what, len(what)
            else:
                info.type, info.linkname = what
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(*members: tuple[str, bytes], mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            zipped.writestr(info, content)
    return buffer.getvalue()


GIVES = ("data/images/a", "data/images/b")
GOOD = (("images/a", b"one"), ("images/b", b"two"))
ARCHIVES: dict[str, tuple[Any, bytes]] = {
    "tar": ("tar", tar_of(("images", (tarfile.DIRTYPE, "")), *GOOD)),
    "zip": ("zip", zip_of(("images/", b""), *GOOD)),
}


def archive(url: str, unpack: str = "tar", **more: Any) -> Download:
    """`data/pack` with two images."""
    fields = {"path": "data/pack", "urls": (url,), "gives": GIVES, "unpack": unpack, **more}
    return Download(**fields)


def test_a_gz_file_is_unpacked_beside_itself_and_removed(site: Site, tmp_path: Path) -> None:
    url = site.serve("/x", content=gzip.compress(CONTENT))
    download = Download("raw/x-ubyte.gz", (url,), unpack="gz")
    assert fetch([download], tmp_path) == (tmp_path / "raw" / "x-ubyte",)
    assert (tmp_path / "raw" / "x-ubyte").read_bytes() == CONTENT
    assert tree(tmp_path) == {"raw", "raw/x-ubyte"}
    assert fetch([download], tmp_path) == ()


def test_a_gz_file_that_is_not_to_be_unpacked_stays_one(site: Site, tmp_path: Path) -> None:
    fetch([Download("x.gz", (site.serve("/x"),))], tmp_path)
    assert tree(tmp_path) == {"x.gz"}


@pytest.mark.parametrize(("unpack", "content"), ARCHIVES.values(), ids=list(ARCHIVES))
def test_an_archive_is_unpacked_into_its_folder_and_removed(
    site: Site, tmp_path: Path, unpack: str, content: bytes
) -> None:
    fetch([archive(site.serve("/x", content=content), unpack)], tmp_path)
    assert tree(tmp_path) == {"data", "data/images", *GIVES}
    assert [(tmp_path / name).read_bytes() for name in GIVES] == [b"one", b"two"]


def test_an_archive_can_be_unpacked_into_another_folder(site: Site, tmp_path: Path) -> None:
    url = site.serve("/x", content=ARCHIVES["zip"][1])
    download = Download("pack", (url,), gives=GIVES, unpack="zip", into="data")
    fetch([download], tmp_path)
    assert tree(tmp_path) == {"data", "data/images", *GIVES}


def test_a_folder_that_is_there_is_completed(site: Site, tmp_path: Path) -> None:
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    (images / "a").write_bytes(b"torn")
    (images / "mine").write_bytes(b"kept")
    fetch([archive(site.serve("/x", content=ARCHIVES["tar"][1]))], tmp_path)
    assert [(images / name).read_bytes() for name in ("a", "b", "mine")] == [
        b"one", b"two", b"kept",
    ]  # fmt: skip


def test_an_archive_put_there_by_hand_is_used_and_kept(site: Site, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pack").write_bytes(ARCHIVES["tar"][1])
    fetch([archive(site.serve("/x"), sha256=digest(ARCHIVES["tar"][1]))], tmp_path)
    assert site.asked == []
    assert tree(tmp_path) == {"data", "data/pack", "data/images", *GIVES}


def test_a_wrong_archive_put_there_by_hand_is_refused_and_kept(site: Site, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pack").write_bytes(OTHER)
    with pytest.raises(DataError, match=rf"pack is not the file known.*{digest(OTHER)}.*Remove it"):
        fetch([archive(site.serve("/x"), sha256=digest(CONTENT))], tmp_path)
    assert tree(tmp_path) == {"data", "data/pack"}


SYM, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE
LINK = stat.S_IFLNK | 0o777
HOSTILE: dict[str, tuple[str, str, bytes]] = {
    "tar absolute": ("/tmp/evil", "tar", tar_of(*GOOD, ("/tmp/evil", b"x"))),
    "tar dots": ("../evil", "tar", tar_of(*GOOD, ("../evil", b"x"))),
    "tar dots inside": ("a/../../evil", "tar", tar_of(*GOOD, ("a/../../evil", b"x"))),
    "tar drive": ("C:evil", "tar", tar_of(*GOOD, ("C:evil", b"x"))),
    "tar symlink absolute": ("s", "tar", tar_of(*GOOD, ("s", (SYM, "/etc/passwd")))),
    "tar symlink out": ("images/s", "tar", tar_of(*GOOD, ("images/s", (SYM, "../../x")))),
    "tar symlink to a folder": (
        "images/s", "tar", tar_of(*GOOD, ("images/s", (SYM, "..")), ("images/s/evil", b"x"))
    ),
    "tar symlink to a symlink": (
        "t", "tar", tar_of(*GOOD, ("s", (SYM, "images/a")), ("t", (SYM, "s")))
    ),
    "tar symlink to itself": ("s", "tar", tar_of(*GOOD, ("s", (SYM, "s")))),
    "tar hard link out": ("h", "tar", tar_of(*GOOD, ("h", (HARD, "../../etc/passwd")))),
    "tar hard link absolute": ("h", "tar", tar_of(*GOOD, ("h", (HARD, "/etc/passwd")))),
    "tar device": ("d", "tar", tar_of(*GOOD, ("d", (tarfile.CHRTYPE, "")))),
    "tar pipe": ("p", "tar", tar_of(*GOOD, ("p", (tarfile.FIFOTYPE, "")))),
    "zip absolute": ("/tmp/evil", "zip", zip_of(*GOOD, ("/tmp/evil", b"x"))),
    "zip dots": ("../evil", "zip", zip_of(*GOOD, ("../evil", b"x"))),
    "zip drive": ("C:/evil", "zip", zip_of(*GOOD, ("C:/evil", b"x"))),
    "zip backslash": (r"..\\evil", "zip", zip_of(*GOOD, ("..\\evil", b"x"))),
    "zip symlink out": ("s", "zip", zip_of(("s", b"../../x"), mode=LINK)),
    "zip device": ("d", "zip", zip_of(("d", b""), mode=stat.S_IFCHR)),
}  # fmt: skip


@pytest.mark.parametrize(("member", "unpack", "content"), HOSTILE.values(), ids=list(HOSTILE))
def test_an_archive_that_reaches_out_of_its_folder_is_refused_and_leaves_nothing(
    site: Site, tmp_path: Path, member: str, unpack: str, content: bytes
) -> None:
    with pytest.raises(DataError) as error:
        fetch([archive(site.serve("/x", content=content), unpack)], tmp_path / "root")
    assert f"holds '{member}'" in str(error.value)
    assert tree(tmp_path / "root") == {"data"}
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_a_link_longer_than_any_path_is_not_read(site: Site, tmp_path: Path) -> None:
    content = zip_of(("s", b"x" * 5000), mode=LINK)
    with pytest.raises(DataError, match="holds 's', which is no file, folder or link"):
        fetch([archive(site.serve("/x", content=content), "zip")], tmp_path)


def test_a_link_within_an_archive_becomes_a_copy(site: Site, tmp_path: Path) -> None:
    content = tar_of(("images/a", b"one"), ("images/b", (SYM, "a")), ("c", (HARD, "images/a")))
    fetch([archive(site.serve("/x", content=content))], tmp_path)
    for name in ("images/b", "c"):
        copy = tmp_path / "data" / name
        assert not copy.is_symlink()
        assert copy.stat().st_nlink == 1
        assert copy.read_bytes() == b"one"


def test_a_link_in_a_zip_becomes_a_copy(site: Site, tmp_path: Path) -> None:
    buffer = io.BytesIO(zip_of(("images/a", b"one")))
    with zipfile.ZipFile(buffer, "a") as zipped:
        info = zipfile.ZipInfo("images/b")
        info.external_attr = LINK << 16
        zipped.writestr(info, "a")
    fetch([archive(site.serve("/x", content=buffer.getvalue()), "zip")], tmp_path)
    copy = tmp_path / "data" / "images" / "b"
    assert not copy.is_symlink()
    assert copy.read_bytes() == b"one"


@pytest.mark.parametrize(
    ("unpack", "content"),
    [
        ("zip", zip_of(*GOOD, ("bomb", bytes(10**6)))),
        ("tar", tar_of(*GOOD, ("bomb", bytes(10**6)))),
    ],
    ids=["zip", "tar"],
)
def test_a_bomb_is_refused_by_what_it_says_of_itself(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unpack: str, content: bytes
) -> None:
    disk(monkeypatch, 10**6)
    with pytest.raises(DataError, match=r"What data/pack holds needs 1.0 MB"):
        fetch([archive(site.serve("/x", content=content), unpack)], tmp_path)
    assert tree(tmp_path) == {"data", "data/pack"}


def test_a_bomb_that_says_nothing_is_stopped_while_it_goes_off(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = site.serve("/x", content=gzip.compress(bytes(10**6)))
    disk(monkeypatch, 10**5)
    with pytest.raises(DataError, match="unpacks to more than"):
        fetch([Download("x.gz", (url,), unpack="gz")], tmp_path)
    assert tree(tmp_path) == set()


@pytest.mark.parametrize("unpacked", [5, 6])
def test_more_than_was_declared_is_refused_and_just_as_much_is_not(
    site: Site, tmp_path: Path, unpacked: int
) -> None:
    download = archive(site.serve("/x", content=ARCHIVES["tar"][1]), unpacked=unpacked)
    if unpacked == 6:
        assert fetch([download], tmp_path)
        return
    with pytest.raises(DataError, match="unpacks to more than it should"):
        fetch([download], tmp_path)
    assert tree(tmp_path) == {"data"}


@pytest.mark.parametrize(
    ("unpack", "content"),
    [
        ("tar", ARCHIVES["tar"][1][:60]),
        ("tar", b"no archive"),
        ("zip", ARCHIVES["zip"][1][:60]),
        # the five compressed bytes of the first image, after its header and name
        ("zip", ARCHIVES["zip"][1].replace(zip_of(GOOD[0])[38:43], b"\0" * 5)),
    ],
    ids=["cut tar", "no tar", "cut zip", "changed zip"],
)
def test_a_damaged_archive_is_removed_so_that_the_next_call_fetches_it_anew(
    site: Site, tmp_path: Path, unpack: str, content: bytes
) -> None:
    with pytest.raises(DataError, match="is damaged"):
        fetch([archive(site.serve("/x", content=content), unpack)], tmp_path)
    assert tree(tmp_path) == {"data"}
    fetch([archive(site.serve("/x", content=ARCHIVES[unpack][1]), unpack)], tmp_path)
    assert (tmp_path / GIVES[0]).read_bytes() == b"one"


def test_a_damaged_gz_file_gives_no_half_of_itself(site: Site, tmp_path: Path) -> None:
    url = site.serve("/x", content=gzip.compress(CONTENT)[:-4])
    with pytest.raises(DataError, match="is damaged"):
        fetch([Download("x.gz", (url,), unpack="gz")], tmp_path)
    assert tree(tmp_path) == set()


def test_an_archive_without_what_it_should_give_is_refused(site: Site, tmp_path: Path) -> None:
    url = site.serve("/x", content=tar_of(GOOD[0]))
    with pytest.raises(DataError, match="holds no data/images/b"):
        fetch([archive(url)], tmp_path)
    assert tree(tmp_path) == {"data"}


def test_a_kill_while_unpacking_leaves_nothing_torn_and_the_archive(
    site: Site, tmp_path: Path
) -> None:
    class Killed(Watched):
        def advance(self, count: int) -> None:
            if self.told[-1][0].startswith("unpacking"):
                raise KeyboardInterrupt

    download = archive(site.serve("/x", content=ARCHIVES["tar"][1]))
    with pytest.raises(KeyboardInterrupt):
        fetch([download], tmp_path, progress=Killed())
    assert tree(tmp_path) == {"data", "data/pack"}
    fetch([download], tmp_path)
    assert len(site.asked) == 1
    assert download.is_there(tmp_path)


def test_what_a_killed_process_was_unpacking_is_cleared_away(site: Site, tmp_path: Path) -> None:
    torn = tmp_path / "data" / ".pack.unpacking" / "data" / "images"
    torn.mkdir(parents=True)
    (torn / "c").write_bytes(b"torn")
    fetch([archive(site.serve("/x", content=ARCHIVES["tar"][1]))], tmp_path)
    assert tree(tmp_path) == {"data", "data/images", *GIVES}


# ---- what is declared


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"path": "/etc/x"}, "'/etc/x' must be relative"),
        ({"path": "../x"}, "'../x' must be relative"),
        ({"path": "a//x"}, "'a//x' must be relative"),
        ({"path": ""}, "'' must be relative"),
        ({"path": r"a\x"}, "must be relative"),
        ({"gives": ("a/../../x",)}, "'a/../../x' must be relative"),
        ({"into": ".."}, "'..' must be relative"),
        ({"unpack": "zip"}, "must say which files"),
        ({"sha256": "abc"}, "'abc' is no SHA-256"),
        ({"urls": ("http://example.org/x",)}, "must start with https:// or file://"),
        ({"urls": ("ftp://example.org/x",)}, "must start with https:// or file://"),
    ],
)
def test_a_download_that_cannot_be_trusted_is_refused_when_it_is_declared(
    fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError) as error:
        Download(**{"path": "x", "urls": ("https://example.org/x",), **fields})
    assert says in str(error.value)


def test_mnist_gives_the_files_that_cmnist_is_made_from(tmp_path: Path) -> None:
    given = {tmp_path / name for download in MNIST for name in download.gives}
    assert given == set(CMNIST().sources(tmp_path))


@pytest.mark.parametrize("download", [*MNIST, *CIFAR10], ids=lambda d: d.path)
def test_known_downloads_are_checked_against_digest_and_size(download: Download) -> None:
    assert download.sha256
    assert download.size
    assert download.unpacked
    assert all(url.startswith("https://") and url.endswith(download.path.rpartition("/")[2])
               for url in download.urls)  # fmt: skip

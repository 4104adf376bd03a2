"""Transfers: every way in which a source can fail, and every way in which one resumes."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from debiasbench.common.errors import DataError
from debiasbench.core.download import Download
from debiasbench.files import transfer
from debiasbench.files.download import fetch
from tests.files.server import CONTENT, OTHER, PAGE, Reply, Site, digest, left_over, one, tree

pytestmark = pytest.mark.usefixtures("no_network_and_no_waiting")


def test_a_dropped_connection_is_resumed(site: Site, tmp_path: Path) -> None:
    fetch([one(site.serve("/x", most=[2000, 1000]))], tmp_path)
    assert [a.range for a in site.requests] == [None, "bytes=2000-", "bytes=3000-"]
    assert [a.sent for a in site.requests] == [2000, 1000, 2000]
    assert (tmp_path / "sub" / "data.bin").read_bytes() == CONTENT


def test_a_later_call_resumes_an_interrupted_one(site: Site, tmp_path: Path) -> None:
    reply = Reply(always=2000, ranges=False, etag='"1"')
    download = one(site.serve("/x", reply), content=None)
    with pytest.raises(DataError, match="ended after 2,000 of 5,000 bytes"):
        fetch([download], tmp_path)
    reply.always, reply.ranges = None, True
    fetch([download], tmp_path)
    assert (site.requests[-1].range, site.requests[-1].if_range) == ("bytes=2000-", '"1"')
    assert site.requests[-1].sent == 3000
    assert (tmp_path / "sub" / "data.bin").read_bytes() == CONTENT


def test_two_versions_of_a_file_are_never_mixed(site: Site, tmp_path: Path) -> None:
    old = Reply(content=OTHER, etag='"1"', most=[2000, 0, 0])
    download = one(site.serve("/x", old), content=None)
    with pytest.raises(DataError):
        fetch([download], tmp_path)
    site.serve("/x", content=CONTENT, etag='"2"')
    fetch([download], tmp_path)
    assert (site.requests[-1].range, site.requests[-1].if_range) == ("bytes=2000-", '"1"')
    assert (tmp_path / "sub" / "data.bin").read_bytes() == CONTENT


def test_without_a_digest_bytes_of_an_unknown_version_are_not_kept(
    site: Site, tmp_path: Path
) -> None:
    left_over(tmp_path, OTHER[:2000])
    fetch([one(site.serve("/x"), content=None)], tmp_path)
    assert [a.range for a in site.requests] == [None]
    assert (tmp_path / "sub" / "data.bin").read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_is_read_from_the_start(site: Site, tmp_path: Path) -> None:
    left_over(tmp_path, CONTENT[:2000])
    fetch([one(site.serve("/x", ranges=False))], tmp_path)
    assert [(a.range, a.sent) for a in site.requests] == [("bytes=2000-", 5000)]
    assert (tmp_path / "sub" / "data.bin").read_bytes() == CONTENT


def test_a_range_that_was_not_requested_is_not_appended(site: Site, tmp_path: Path) -> None:
    left_over(tmp_path, CONTENT[:2000])
    fetch([one(site.serve("/x", false_range="bytes 1000-4999/5000"))], tmp_path)
    assert [a.range for a in site.requests] == ["bytes=2000-", None]


def test_a_complete_partial_file_is_only_verified(site: Site, tmp_path: Path) -> None:
    left_over(tmp_path, CONTENT)
    fetch([one(site.serve("/x"))], tmp_path)
    assert [(a.range, a.sent) for a in site.requests] == [("bytes=5000-", 0)]
    assert tree(tmp_path) == {"sub", "sub/data.bin"}


@pytest.mark.parametrize(
    "wrong", [OTHER[:2000], OTHER, OTHER * 2], ids=["shorter", "as long", "longer"]
)
def test_a_partial_file_of_another_file_is_discarded(
    site: Site, tmp_path: Path, wrong: bytes
) -> None:
    left_over(tmp_path, wrong)
    fetch([one(site.serve("/x"))], tmp_path)
    assert [a.range for a in site.requests] == [f"bytes={len(wrong)}-", None]
    assert (tmp_path / "sub" / "data.bin").read_bytes() == CONTENT


def test_a_web_page_does_not_delete_the_bytes_so_far(site: Site, tmp_path: Path) -> None:
    left_over(tmp_path, CONTENT[:2000])
    with pytest.raises(DataError, match="a web page"):
        fetch([one(site.serve("/x", content=PAGE, ranges=False))], tmp_path)
    assert (tmp_path / "sub" / "data.bin.part").read_bytes() == CONTENT[:2000]


def test_a_resumed_part_that_begins_like_a_page_is_accepted(site: Site, tmp_path: Path) -> None:
    content = CONTENT[:2000] + PAGE
    left_over(tmp_path, content[:2000])
    fetch([one(site.serve("/x", content=content), content=content)], tmp_path)
    assert (tmp_path / "sub" / "data.bin").read_bytes() == content


def test_attempts_do_not_run_out_while_bytes_arrive(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "CHUNK", 500)
    fetch([one(site.serve("/x", always=500))], tmp_path)
    assert len(site.requests) == 10


FAILURES = {
    "answered 404 Not Found": (Reply(status=404), 1),
    "answered 503 Service Unavailable": (Reply(status=503), 3),
    "answered 204 No Content": (Reply(status=204), 1),
    "sent a web page instead of the file": (
        Reply(content=b"Log in", kind="text/html; charset=utf-8"),
        1,
    ),
    "sent a web page instead of": (Reply(content=PAGE), 1),
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
def test_a_failing_source_is_reported_and_the_next_one_is_used(
    site: Site, tmp_path: Path, reason: str, failure: tuple[Reply, int]
) -> None:
    reply, attempts = failure
    bad, good = site.serve("/bad", reply), site.serve("/good")
    with pytest.raises(DataError) as error:
        fetch([one(bad, size=5000)], tmp_path / "alone")
    assert f"{bad} " in str(error.value)
    assert reason in str(error.value)
    assert len(site.requests) == attempts
    fetch([one(bad, good, size=5000)], tmp_path)
    assert (tmp_path / "sub" / "data.bin").read_bytes() == CONTENT


def test_a_silent_source_times_out(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "TIMEOUT", 0.1)
    wait = threading.Event()
    silent, good = site.serve("/silent", hold=wait), site.serve("/good")
    fetch([one(silent, good)], tmp_path)
    wait.set()
    assert [a.path for a in site.requests] == ["/silent"] * 3 + ["/good"]


def test_an_empty_answer_is_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sent 0 bytes"):
        fetch([one(site.serve("/x", content=b""), content=None)], tmp_path)
    assert tree(tmp_path) == {"sub"}


def test_a_declared_web_page_is_accepted(site: Site, tmp_path: Path) -> None:
    url = site.serve("/x", content=PAGE, kind="text/html")
    fetch([Download("readme.html", (url,))], tmp_path)
    assert (tmp_path / "readme.html").read_bytes() == PAGE


def test_a_closed_port_is_reported_as_unreachable(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DataError, match=r"could not be reached \(Connection refused\)"):
        fetch([one(f"http://127.0.0.1:{port}/x")], tmp_path)


def test_a_file_on_this_machine_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "mirror").write_bytes(CONTENT)
    fetch([one((tmp_path / "mirror").as_uri())], tmp_path / "root")
    assert (tmp_path / "root" / "sub" / "data.bin").read_bytes() == CONTENT

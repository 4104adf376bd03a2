"""Downloads: what is added under the data root, and what the user is told."""

from __future__ import annotations

import gzip
import threading
from pathlib import Path

import pytest

from debiasbench.common.errors import DataError
from debiasbench.core.download import Download
from debiasbench.files.download import fetch
from tests.files.server import CONTENT, OTHER, Site, Watched, left_over, one, tree

pytestmark = pytest.mark.usefixtures("no_network_and_no_waiting")


@pytest.mark.parametrize("length", [True, False])
def test_a_file_is_downloaded_and_nothing_else_is_left(
    site: Site, tmp_path: Path, length: bool
) -> None:
    brought = fetch([one(site.serve("/x", length=length, etag='"1"'))], tmp_path)
    assert brought == (tmp_path / "sub" / "data.bin",)
    assert brought[0].read_bytes() == CONTENT
    assert tree(tmp_path) == {"sub", "sub/data.bin"}


def test_an_existing_file_is_not_downloaded_and_nothing_is_written(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data.bin").write_bytes(b"as the user put it")
    assert fetch([one(site.serve("/x"))], tmp_path) == ()
    assert site.requests == []
    assert not (tmp_path / ".locks").exists()


def test_the_user_is_told_what_to_download_manually(site: Site, tmp_path: Path) -> None:
    first, second = site.serve("/a", status=403), site.serve("/b", status=404)
    downloads = [one(first, second), one(path="sub/more.bin"), one(path="sub/rest.bin")]
    with pytest.raises(DataError) as error:
        fetch(downloads, tmp_path)
    assert str(error.value) == (
        f"Could not download sub/data.bin: {first} answered 403 Forbidden; {second} answered 404 "
        f"Not Found. Download it manually, save it as {tmp_path}/sub/data.bin and run this "
        "command again. Also missing: sub/more.bin, sub/rest.bin"
    )


def test_a_wrong_file_is_deleted(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="instead of"):
        fetch([one(site.serve("/x", content=OTHER))], tmp_path)
    assert tree(tmp_path) == {"sub"}


def test_a_data_root_that_cannot_be_written_is_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file")
    with pytest.raises(
        DataError, match=r"Cannot write .*root.*Choose another folder with --data-root"
    ):
        fetch([one(site.serve("/x"))], tmp_path / "root")


def test_progress_counts_every_byte_downloaded_and_unpacked(site: Site, tmp_path: Path) -> None:
    progress = Watched()
    left_over(tmp_path, CONTENT[:2000])
    fetch([one(site.serve("/x"))], tmp_path, progress=progress)
    assert (progress.started, progress.counted) == ([("sub/data.bin", 5000)], 5000)
    packed = gzip.compress(CONTENT)
    download = Download("a.gz", (site.serve("/y", content=packed),), unpack="gz")
    fetch([download], tmp_path, progress=progress)
    assert progress.started[1:] == [("a.gz", len(packed)), ("unpacking a.gz", None)]
    assert (progress.counted, progress.open) == (5000, 0)


def test_two_calls_at_once_download_once(site: Site, tmp_path: Path) -> None:
    wait = threading.Event()
    download = one(site.serve("/x", hold=wait))

    class Second(Watched):
        def start(self, what: str, total: int | None) -> None:
            super().start(what, total)
            wait.set()  # the first call gets its bytes only when the second waits

    second = Second()
    brought = []
    first = threading.Thread(target=lambda: brought.append(fetch([download], tmp_path)))
    first.start()
    while not site.requests:
        pass
    assert fetch([download], tmp_path, progress=second) == ()
    first.join()
    assert brought == [(tmp_path / "sub" / "data.bin",)]
    assert len(site.requests) == 1
    assert second.started == [("waiting for sub/data.bin from another process", None)]

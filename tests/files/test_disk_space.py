"""Free disk space is checked before a download starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from debiasbench.common.errors import DataError
from debiasbench.core.download import Download
from debiasbench.files.download import fetch
from tests.files.packing import archive
from tests.files.server import CONTENT, Site, disk, left_over, one, tree

pytestmark = pytest.mark.usefixtures("no_network_and_no_waiting")


def test_a_file_that_does_not_fit_is_not_requested(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, 4999)
    with pytest.raises(
        DataError, match=r"data.bin needs 5,000 bytes in .*, but only 4,999 bytes are"
    ):
        fetch([one(site.serve("/x"), size=5000)], tmp_path)
    assert site.requests == []
    disk(monkeypatch, 5000)
    assert fetch([one(site.serve("/x"), size=5000)], tmp_path)


def test_a_size_announced_by_the_server_is_checked_before_writing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, 4999)
    with pytest.raises(DataError, match="needs 5,000 bytes"):
        fetch([one(site.serve("/x"))], tmp_path)
    assert tree(tmp_path) == {"sub"}


def test_existing_bytes_need_no_space(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, 3000)
    left_over(tmp_path, CONTENT[:2000])
    assert fetch([one(site.serve("/x"), size=5000)], tmp_path)


def test_the_content_of_an_archive_needs_space_too(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, 6999)
    packed = Download("a.gz", ("https://127.0.0.1/",), unpack="gz", size=2000, unpacked=5000)
    with pytest.raises(DataError, match="needs 7,000 bytes"):
        fetch([packed], tmp_path)


def test_unknown_content_is_assumed_to_be_as_large_as_the_archive(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, 3999)
    with pytest.raises(DataError, match="needs 4,000 bytes"):
        fetch([archive("https://127.0.0.1/", size=2000)], tmp_path)


@pytest.mark.parametrize(
    ("size", "text"), [(10**10, "10.0 GB"), (2_500_000, "2.5 MB"), (999_999, "999,999 bytes")]
)
def test_sizes_have_a_suitable_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, text: str
) -> None:
    disk(monkeypatch, 0)
    with pytest.raises(DataError, match=f"needs {text} in"):
        fetch([one("https://127.0.0.1/", size=size)], tmp_path)

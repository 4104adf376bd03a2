"""Walks over folders in which other processes remove files."""

from __future__ import annotations

import shutil
from pathlib import Path

from debiasbench.common import folders


def test_a_folder_that_does_not_exist_has_no_entries(tmp_path: Path) -> None:
    assert folders.entries(tmp_path / "none") == []


def test_a_file_that_vanished_after_it_was_listed_has_no_status(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    [entry] = folders.entries(tmp_path)
    (tmp_path / "a").unlink()
    assert folders.status(entry) is None


def test_what_vanishes_during_a_walk_is_left_out(tmp_path: Path) -> None:
    for name in ("a/1", "b/2", "c/3"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"abc")
    walk = folders.files(tmp_path)
    assert next(walk) == tmp_path / "a/1"
    shutil.rmtree(tmp_path / "b")
    assert list(walk) == [tmp_path / "c/3"]


def test_files_come_in_order_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/2", "b/1", "c"):
        (tmp_path / name).touch()
    (tmp_path / "a").symlink_to(tmp_path)
    assert list(folders.files(tmp_path)) == [tmp_path / name for name in ("c", "b/1", "b/2")]

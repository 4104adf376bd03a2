"""FIFOs, devices, folders that cannot be read and long names, wherever data are read."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from debiasbench.common.errors import DataError, UnknownNameError
from debiasbench.core.data import Dataset, Task
from debiasbench.core.download import Download
from debiasbench.datasets.celeba import read_partition
from debiasbench.files import images, importing, task_cache, task_folder
from debiasbench.files.importing import Source, import_data
from debiasbench.files.partial_file import MismatchError, verify
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import find_dataset
from tests.files.importing.birds import HEAD, bird_rows, birds_in, changed, picture, problems

READERS: dict[str, Callable[[Path], object]] = {
    "image": images.read,
    "table of a data set": read_partition,
    "table of an import": lambda file: import_data(
        "birds", Source(file.parent, file, "species", ("place",)), file.parent
    ),
    "description of a task": lambda file: task_folder.facts(_moved(file, "task.json").parent),
    "description of an import": lambda file: importing.find(
        file.parent, _moved(file, "imported/birds/task.json").parent.name
    ),
}


def _moved(file: Path, name: str) -> Path:
    target = file.parent / name
    target.parent.mkdir(parents=True, exist_ok=True)
    return file.rename(target)


@pytest.mark.parametrize("reader", READERS)
def test_a_fifo_is_refused_and_not_waited_for(reader: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError, match="not a regular file"):
        READERS[reader](tmp_path / "fifo")


def test_a_device_is_refused() -> None:
    with pytest.raises(DataError, match="not a regular file"):
        read_partition(Path("/dev/zero"))


def test_a_fifo_in_the_place_of_a_download_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(MismatchError, match="is not a regular file"):
        verify(Download(path="fifo", urls=(), size=0), tmp_path / "fifo")


def test_a_fifo_in_a_tree_of_images_is_a_bad_image(tmp_path: Path) -> None:
    for i, label in enumerate(("land", "water")):
        picture(tmp_path / "tree" / label / "field" / f"{i}.png", (i, 0, 0))
    os.mkfifo(tmp_path / "tree" / "land" / "field" / "x.png")
    assert problems("birds", Source(tmp_path / "tree"), tmp_path) == [
        "land/field/x.png: is not a file"
    ]


def test_control_characters_are_refused_in_labels_and_escaped_in_names(tmp_path: Path) -> None:
    rows: list[tuple[str, ...]] = [*bird_rows(), ("x\x1b[2J.png", "la\x1bnd", "field")]
    source = changed(birds_in(tmp_path), [HEAD, *rows])
    assert import_data("skipped", source, tmp_path / "root", skip_bad=True).left_out
    assert problems("birds", source, tmp_path) == [
        "line 42, x\\x1b[2J.png: is missing",
        "line 42, x\\x1b[2J.png: has control characters in its label, 'la\\x1bnd': remove them",
    ]


def test_a_name_that_no_file_can_have_is_an_unknown_name(tmp_path: Path) -> None:
    for name in ("b" * 5000, "", "birds\0"):
        with pytest.raises(UnknownNameError, match="Unknown dataset"):
            find_dataset(Plugins(), name, tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        import_data("birds", Source(tmp_path / ("b" * 5000)), tmp_path)


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder unreadable, also for the administrator."""
    folder = tmp_path / "locked"
    plain = Path.stat

    def refused(path: Path, **options: bool) -> os.stat_result:
        if folder in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, **options)

    folder.mkdir()
    monkeypatch.setattr(Path, "stat", refused)
    return folder


def test_a_data_root_that_cannot_be_read_is_one_error_that_names_it(
    locked: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"imported cannot be read \(Permission denied\)"):
        find_dataset(Plugins(), "birds", locked)
    with pytest.warns(UserWarning, match="cannot be read"):
        assert importing.names(locked) == []
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        import_data("birds", replace(birds_in(tmp_path), images=locked / "birds"), tmp_path)


@dataclass(frozen=True)
class Unreadable(Dataset):
    """A data set whose folder cannot be read."""

    def load(self, root: Path) -> Task:
        raise PermissionError(13, "Permission denied", str(root / "mine"))


def test_a_data_set_that_cannot_be_read_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mine cannot be read: .*mine: Permission denied\. Check"):
        task_cache.load("mine", Unreadable(), tmp_path)


def test_the_size_of_a_folder_leaves_out_what_vanishes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    assert task_cache.weight(tmp_path) == 5

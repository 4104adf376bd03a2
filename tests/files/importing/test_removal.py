"""Removing an imported data set removes it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from debiasbench.common.errors import BusyError, DataError
from debiasbench.files import importing
from debiasbench.files.importing import Source, import_data, place
from tests.files.importing.birds import leftovers


def test_an_imported_data_set_is_removed_and_its_images_are_kept(
    birds: Source, tmp_path: Path
) -> None:
    import_data("birds", birds, tmp_path)
    import_data("other", birds, tmp_path)
    assert importing.remove(tmp_path, "birds") == tmp_path / "imported" / "birds"
    assert importing.names(tmp_path) == leftovers(tmp_path) == ["other"]
    assert len(list(birds.images.iterdir())) == 40
    import_data("birds", birds, tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "../birds", "bird", ".locks", "a/b", "b" * 300])
def test_other_names_remove_nothing(name: str, birds: Source, tmp_path: Path) -> None:
    import_data("birds", birds, tmp_path)
    with pytest.raises(DataError, match=r"No data set .* is imported"):
        importing.remove(tmp_path, name)
    assert importing.names(tmp_path) == ["birds"]


def test_a_folder_with_other_files_is_not_removed(birds: Source, tmp_path: Path) -> None:
    folder = import_data("birds", birds, tmp_path).folder
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt is not part of a data set"):
        importing.remove(tmp_path, "birds")
    (folder / "notes.txt").unlink()
    (folder / "train-x.npy").unlink()  # damaged, but nothing else
    importing.remove(tmp_path, "birds")
    assert not folder.exists()


def test_a_folder_outside_the_data_root_is_not_removed(birds: Source, tmp_path: Path) -> None:
    folder = import_data("birds", birds, tmp_path / "elsewhere").folder
    (tmp_path / "root" / "imported").mkdir(parents=True)
    (tmp_path / "root" / "imported" / "birds").symlink_to(folder)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "imported").symlink_to(folder.parent)
    for root in ("root", "linked"):
        with pytest.raises(DataError, match="outside the data root"):
            importing.remove(tmp_path / root, "birds")
    assert (folder / "task.json").is_file()


def test_a_data_set_that_is_being_imported_is_not_removed(birds: Source, tmp_path: Path) -> None:
    folder = import_data("birds", birds, tmp_path).folder
    with place.claimed(folder), pytest.raises(BusyError):
        importing.remove(tmp_path, "birds")
    assert folder.is_dir()

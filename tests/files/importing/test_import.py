"""What an import makes of a table or a tree of folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from debiasbench.common.errors import DataError
from debiasbench.datasets.imported import Imported
from debiasbench.files import images
from debiasbench.files.importing import Source, import_data
from tests.files.importing.birds import (
    HEAD,
    LABELS,
    PLACES,
    bird_rows,
    changed,
    picture,
    pixels,
    problems,
    split_rows,
)


def test_labels_come_from_the_table_and_pixels_from_the_files(
    birds: Source, tmp_path: Path
) -> None:
    rows = split_rows()
    source = changed(birds, [(*HEAD, "split"), *rows], split="split")
    done = import_data("birds", source, tmp_path)
    task = Imported(name="birds", digest=done.digest).load(tmp_path)
    assert (task.classes, task.biases) == (LABELS, PLACES)
    for name, split in task.splits().items():
        members = [row for row in rows if row[3] == name]
        assert [LABELS[y] for y in split.y] == [row[1] for row in members]
        assert [PLACES[b] for b in split.bias] == [row[2] for row in members]
        for x, row in zip(split.x, members, strict=True):
            with Image.open(birds.images / row[0]) as image:
                assert np.array_equal(x.permute(1, 2, 0), np.asarray(image))


def test_the_digest_depends_on_the_input_only(birds: Source, tmp_path: Path) -> None:
    first = import_data("a", birds, tmp_path)
    assert import_data("b", birds, tmp_path).digest == first.digest
    rows = bird_rows()
    other = changed(birds, [HEAD, (rows[0][0], "water", rows[0][2]), *rows[1:]])
    assert import_data("c", other, tmp_path).digest != first.digest


def test_the_images_are_not_needed_afterwards(birds: Source, tmp_path: Path) -> None:
    import_data("birds", birds, tmp_path)
    shutil.rmtree(birds.images)
    assert len(Imported(name="birds").load(tmp_path).train) == 26


def test_a_tree_of_classes_and_biases_is_the_same_data(birds: Source, tmp_path: Path) -> None:
    tree_of(birds, tmp_path / "tree")
    (tmp_path / "tree" / "README.md").write_text("mine")
    (tmp_path / "tree" / "land" / "field" / ".DS_Store").write_text("mine")
    done = import_data("tree", Source(tmp_path / "tree"), tmp_path)
    assert (done.task.classes, done.task.biases) == (LABELS, PLACES)
    table = import_data("table", birds, tmp_path)
    assert sorted(pixels(done)) == sorted(pixels(table))
    for name, split in done.task.splits().items():
        assert torch.equal(
            done.task.group_counts(split), table.task.group_counts(table.task.splits()[name])
        )


def test_a_tree_may_have_splits_at_its_top(birds: Source, tmp_path: Path) -> None:
    folders = {"train": "Train", "val": "validation", "test": "TEST"}
    for file, label, where, split in split_rows():
        target = tmp_path / "tree" / folders[split] / label / where / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(birds.images / file, target)
    done = import_data("tree", Source(tmp_path / "tree"), tmp_path)
    assert [len(s) for s in done.task.splits().values()] == [20, 10, 10]
    stray = picture(tmp_path / "tree" / "Train" / "land" / "x.png", (1, 1, 1))
    inside = tmp_path / "tree" / "TEST" / "land" / "there"
    inside.symlink_to(tmp_path / "birds")
    assert problems("two", Source(tmp_path / "tree"), tmp_path / "other") == [
        "TEST/land/there: is a symbolic link to a folder: replace it with the folder itself",
        "Train/land/x.png: is not at SPLIT/CLASS/BIAS/FILE, as other images are",
    ]
    stray.unlink()
    inside.unlink()
    shutil.rmtree(tmp_path / "tree" / "validation")
    with pytest.raises(DataError, match=r"val split has no image.*remove the folders"):
        import_data("two", Source(tmp_path / "tree"), tmp_path)


def tree_of(birds: Source, tree: Path) -> Source:
    """Copy the birds to a tree of folders."""
    for file, label, where in bird_rows():
        target = tree / label / where / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(birds.images / file, target)
    return Source(tree)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("sky", "sky contains no image, and neither does any other folder of the class 'sky'"),
        ("sky/field", "sky contains no image"),
        ("land/mud", "land/mud contains no image, .* folder of the bias value 'mud'"),
    ],
)
def test_an_empty_folder_of_a_class_or_bias_value_is_an_error_that_names_it(
    folder: str, name: str, birds: Source, tmp_path: Path
) -> None:
    source = tree_of(birds, tmp_path / "tree")
    (tmp_path / "tree" / folder).mkdir(parents=True)
    (tmp_path / "tree" / folder / ".DS_Store").write_text("mine")
    for skip_bad in (False, True):
        with pytest.raises(DataError, match=name):
            import_data("birds", source, tmp_path, skip_bad=skip_bad)


def test_folders_that_systems_add_and_empty_groups_are_no_errors(
    birds: Source, tmp_path: Path
) -> None:
    source = tree_of(birds, tmp_path / "tree")
    (tmp_path / "tree" / "__MACOSX" / "land").mkdir(parents=True)
    (tmp_path / "tree" / ".ipynb_checkpoints").mkdir()
    for file in (tmp_path / "tree" / "land" / "lake").iterdir():
        file.unlink()
    done = import_data("birds", source, tmp_path)
    assert done.task.classes == LABELS
    assert done.warnings[0] == "No split has an image of land with lake"


def test_a_class_whose_images_are_all_at_a_wrong_place_is_not_skipped(
    birds: Source, tmp_path: Path
) -> None:
    source = tree_of(birds, tmp_path / "tree")
    picture(tmp_path / "tree" / "sky" / "x.png", (1, 2, 3))
    assert [p.partition(":")[0] for p in problems("birds", source, tmp_path)] == ["sky/x.png"]
    with pytest.raises(DataError, match="Class 'sky' has no image left"):
        import_data("birds", source, tmp_path, skip_bad=True)


def test_a_name_that_is_not_utf8_is_listed_in_a_readable_form(tmp_path: Path) -> None:
    folder = picture(tmp_path / "tree" / "land" / "field" / "0.png", (0, 0, 0)).parent
    try:
        (folder / "0.png").rename(folder / os.fsdecode(b"\xff.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert problems("birds", Source(tmp_path / "tree"), tmp_path) == [
        "land/field/\\udcff.png: has a name that is not UTF-8: rename it"
    ]


def test_classes_with_names_of_splits_are_classes(tmp_path: Path) -> None:
    for i, place_ in enumerate([*"aaaaaaaaab", *"abbbbbbbbb"]):
        label = "train" if i < 10 else "test"
        picture(tmp_path / "tree" / label / place_ / f"{i}.png", (i, 0, 0))
    done = import_data("vehicles", Source(tmp_path / "tree"), tmp_path)
    assert done.task.classes == ("test", "train")


def test_several_bias_columns_make_one_bias_value(birds: Source, tmp_path: Path) -> None:
    seasons = ("winter", "summer")
    rows = [(*row, seasons[i % 3 == 0]) for i, row in enumerate(bird_rows())]
    source = changed(birds, [(*HEAD, "season"), *rows], bias=("place", "season"))
    task = import_data("birds", source, tmp_path).task
    assert task.biases == (
        "place=field,season=summer",
        "place=field,season=winter",
        "place=lake,season=summer",
        "place=lake,season=winter",
    )
    expected = [
        sum((r[1], f"place={r[2]},season={r[3]}") == (c, b) for r in rows)
        for c in task.classes
        for b in task.biases
    ]
    assert sum(task.group_counts(s) for s in task.splits().values()).tolist() == expected  # type: ignore[union-attr]


def test_numbers_are_sorted_by_size_and_text_alphabetically(birds: Source, tmp_path: Path) -> None:
    numbers = {"land": "10", "water": "9", "field": "-1.5", "lake": "ten"}
    rows = [(f, numbers[label], numbers[where]) for f, label, where in bird_rows()]
    task = import_data("birds", changed(birds, [HEAD, *rows]), tmp_path).task
    assert (task.classes, task.biases) == (("9", "10"), ("-1.5", "ten"))


def test_images_are_scaled_to_the_requested_size(birds: Source, tmp_path: Path) -> None:
    picture(birds.images / "000.png", (9, 9, 9), (30, 20))
    task = import_data("birds", replace(birds, size=(6, 4)), tmp_path).task
    assert task.shape.input == (3, 6, 4)


def test_each_image_is_decoded_once(
    birds: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    decode = images.decode

    def counting(files: Sequence[Path], *more: Any, **options: Any) -> torch.Tensor:
        seen.extend(files)
        return decode(files, *more, **options)

    monkeypatch.setattr(images, "decode", counting)
    import_data("birds", birds, tmp_path)
    assert sorted(p.name for p in seen) == [row[0] for row in bird_rows()]

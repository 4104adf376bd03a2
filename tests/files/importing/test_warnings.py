"""Warnings about duplicates, small groups and similar names."""

from __future__ import annotations

import shutil
from pathlib import Path

from debiasbench.files.importing import Source, import_data
from tests.files.importing.birds import (
    HEAD,
    changed,
    split_rows,
)


def test_an_image_in_two_splits_is_a_warning(birds: Source, tmp_path: Path) -> None:
    shutil.copy(birds.images / "000.png", birds.images / "copy.png")
    shutil.copy(birds.images / "000.png", birds.images / "twin.png")  # harmless in the same split
    rows = [
        *split_rows(),
        ("copy.png", "land", "lake", "test"),
        ("twin.png", "land", "lake", "train"),
    ]
    source = changed(birds, [(*HEAD, "split"), *rows], split="split")
    warnings = import_data("birds", source, tmp_path).warnings
    assert warnings[0] == (
        "Images with the same pixels as an image of another split: 1, such as "
        "line 42, copy.png (test) and line 2, 000.png (train)"
    )
    source = changed(birds, [(*HEAD, "split"), *split_rows()], split="split")
    again = import_data("birds", source, tmp_path, replace=True).warnings
    assert not any("same pixels" in warning for warning in again)


def test_small_and_absent_groups_and_names_that_differ_in_case_are_warnings(
    birds: Source, tmp_path: Path
) -> None:
    rows = [r for r in split_rows() if r[1:] != ("land", "lake", "val")]
    rows[1] = (rows[1][0], "water", "Lake", "train")
    source = changed(birds, [(*HEAD, "split"), *rows], split="split")
    warnings = import_data("birds", source, tmp_path).warnings
    assert "The val split has no image of land with lake; water with Lake" in warnings
    assert "The test split has no image of water with Lake" in warnings
    assert any(w.startswith("The train split has fewer than 10 images of ") for w in warnings)
    assert "Some bias values differ only in upper and lower case: Lake, lake" in warnings

"""Splits: named in a column, or made at random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from debiasbench.common.errors import DataError
from debiasbench.files.importing import Source, import_data
from tests.files.importing.birds import (
    HEAD,
    bird_rows,
    changed,
    pixels,
    split_rows,
)


@pytest.mark.parametrize(
    "words",
    [("0", "1", "2"), ("Train", "VALID", "Test"), ("training", "dev", "testing")],
)
def test_a_split_has_several_names(words: tuple[str, ...], birds: Source, tmp_path: Path) -> None:
    named = dict(zip(("train", "val", "test"), words, strict=True))
    rows = [(*row[:3], named[row[3]]) for row in split_rows()]
    done = import_data("b", changed(birds, [(*HEAD, "s"), *rows], split="s"), tmp_path)
    assert [len(s) for s in done.task.splits().values()] == [20, 10, 10]


def test_without_a_column_each_group_is_split_independently_of_the_order(
    birds: Source, tmp_path: Path
) -> None:
    done = import_data("a", birds, tmp_path)
    # 16 aligned and 4 conflicting of each class
    counts = [done.task.group_counts(s).tolist() for s in done.task.splits().values()]
    assert counts == [[11, 2, 2, 11], [2, 1, 1, 2], [3, 1, 1, 3]]
    assert any("70/10/20 %" in note for note in done.notes)
    backward = import_data("b", changed(birds, [HEAD, *reversed(bird_rows())]), tmp_path)
    for one, other in zip(
        done.task.splits().values(), backward.task.splits().values(), strict=True
    ):
        assert sorted(one.x[:, 0, 0, 0].tolist()) == sorted(other.x[:, 0, 0, 0].tolist())
    seeded = import_data("c", replace(birds, seed=1), tmp_path)
    assert sorted(pixels(seeded)) == sorted(pixels(done))
    assert seeded.digest != done.digest


def test_an_empty_split_is_an_error(birds: Source, tmp_path: Path) -> None:
    rows = [row for row in split_rows() if row[3] != "val"]
    with pytest.raises(DataError, match=r"val split has no image\. Add some, or leave out --split"):
        import_data("b", changed(birds, [(*HEAD, "s"), *rows], split="s"), tmp_path)
    with pytest.raises(DataError, match="too few images to split"):
        import_data("b", changed(birds, [HEAD, *bird_rows(3)]), tmp_path)

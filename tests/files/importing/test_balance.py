"""A balanced test split: equal groups, drawn with the seed, the other splits unchanged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from debiasbench.common.errors import DataError
from debiasbench.files.importing import Finished, Source, import_data
from tests.files.importing.birds import HEAD, bird_rows, changed, split_rows


def counts(done: Finished) -> list[list[int]]:
    return [done.task.group_counts(split).tolist() for split in done.task.splits().values()]


def test_the_test_split_has_the_same_number_of_images_of_each_group(
    birds: Source, tmp_path: Path
) -> None:
    source = replace(changed(birds, [(*HEAD, "s"), *with_many_tests()], split="s"))
    plain = import_data("plain", source, tmp_path)
    assert counts(plain)[2] == [8, 2, 2, 8]
    done = import_data("birds", replace(source, balance_test=True), tmp_path)
    assert counts(done) == [*counts(plain)[:2], [2, 2, 2, 2]]
    assert torch.equal(done.task.train.x, plain.task.train.x)
    note = "The test split has 2 images of each group. Left out of larger groups: 12 images."
    assert any(said.startswith(note) for said in done.notes)


def with_many_tests() -> list[tuple[str, ...]]:
    """Return the birds with 20 test images, 8 of each aligned group and 2 of each other group."""
    return [(*row, ("train", "val", "test", "test")[i // 10]) for i, row in enumerate(bird_rows())]


def test_what_is_kept_depends_on_the_seed_and_not_on_the_order_of_rows(
    birds: Source, tmp_path: Path
) -> None:
    rows = with_many_tests()

    def kept(name: str, rows: list[tuple[str, ...]], seed: int) -> list[int]:
        source = changed(birds, [(*HEAD, "s"), *rows], split="s", balance_test=True, seed=seed)
        test = import_data(name, source, tmp_path).task.test
        return sorted(test.x[:, 0, 0, 0].tolist())

    assert kept("a", rows, 0) == kept("b", rows[::-1], 0) != kept("c", rows, 1)


def test_random_splits_are_balanced_too(birds: Source, tmp_path: Path) -> None:
    done = import_data("birds", replace(birds, balance_test=True), tmp_path)
    assert counts(done) == [[11, 2, 2, 11], [2, 1, 1, 2], [1, 1, 1, 1]]


def test_a_bad_image_is_not_drawn_instead_of_a_good_one(birds: Source, tmp_path: Path) -> None:
    rows = with_many_tests()
    source = changed(birds, [(*HEAD, "s"), *rows], split="s", balance_test=True)
    [first, *_] = [row for row in rows if row[1:] == ("land", "lake", "test")]
    (birds.images / first[0]).write_text("not an image")
    done = import_data("birds", source, tmp_path, skip_bad=True)
    assert counts(done)[2] == [1, 1, 1, 1]
    assert [problem.file for problem in done.left_out] == [first[0]]


def test_a_group_without_test_images_cannot_be_balanced(birds: Source, tmp_path: Path) -> None:
    rows = [row for row in split_rows() if row[1:] != ("land", "lake", "test")]
    source = changed(birds, [(*HEAD, "s"), *rows], split="s", balance_test=True)
    with pytest.raises(DataError, match=r"no image of land with lake.*leave out --balance-test"):
        import_data("birds", source, tmp_path)

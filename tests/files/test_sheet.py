"""The contact sheet and the group table: positions and counts are right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from debiasbench.common.errors import DataError
from debiasbench.core.data import Split, Task
from debiasbench.files.sheet import contact_sheet, group_table
from debiasbench.testing import toy_task


def flat_task(classes: int = 2, biases: int = 2, side: int = 8) -> Task:
    """Make a task of plain images: red encodes the class, green the bias value."""
    y = torch.arange(classes).repeat_interleave(biases * 3)
    bias = torch.arange(biases).repeat(classes * 3)
    x = torch.zeros(len(y), 3, side, side, dtype=torch.uint8)
    x[:, 0] = (100 + 20 * y.to(torch.uint8))[:, None, None]
    x[:, 1] = (10 * bias.to(torch.uint8))[:, None, None]
    x[:, 2] = 77
    split = Split(x, y, bias, num_biases=biases)
    names = tuple("abcdefghijkl")
    aligned = torch.eye(classes, biases, dtype=torch.bool)
    return Task(split, split, split, names[:classes], names[:biases], aligned)


def colours(task: Task) -> list[tuple[int, int, int]]:
    """Return (class, bias, x) of every drawn sample, decoded from its colour."""
    pixels = np.asarray(contact_sheet(task, task.train, "t"))
    drawn = []
    for y, x in zip(*np.nonzero(pixels[:, :, 2] == 77), strict=True):
        left, above = pixels[y, x - 1, 2] != 77, pixels[y - 1, x, 2] != 77
        if left and above and 100 <= pixels[y, x, 0] <= 200:
            drawn.append(((int(pixels[y, x, 0]) - 100) // 20, int(pixels[y, x, 1]) // 10, int(x)))
    return drawn


def test_aligned_samples_are_left_of_conflicting_ones() -> None:
    drawn = colours(flat_task())
    assert len(drawn) == 12
    aligned = [x for y, b, x in drawn if y == b]
    conflicting = [x for y, b, x in drawn if y != b]
    assert len(aligned) == len(conflicting) == 6
    assert max(aligned) < min(conflicting)


def test_conflicting_samples_show_as_many_bias_values_as_fit() -> None:
    drawn = colours(flat_task(classes=3, biases=10))
    for c in range(3):
        shown = [b for y, b, _ in drawn if y == c and b != c]
        assert len(shown) == len(set(shown)) == 6
    few = colours(flat_task(classes=2, biases=3))
    assert {b for y, b, _ in few if y == 0 and b != 0} == {1, 2}


def test_large_images_are_scaled_down_and_grey_images_are_drawn() -> None:
    task = toy_task()
    big = replace(task.train, x=torch.zeros(len(task.train), 1, 300, 200, dtype=torch.uint8))
    sheet = contact_sheet(task, big, "grey")
    assert sheet.mode == "RGB"
    assert sheet.height < 3 * 300


def test_samples_that_are_not_images_cannot_be_drawn() -> None:
    task = toy_task()
    rows = replace(task.train, x=torch.zeros(len(task.train), 5))
    with pytest.raises(DataError, match="cannot be drawn"):
        contact_sheet(task, rows, "rows")


def test_the_group_table_counts_every_group() -> None:
    task = toy_task()
    table = group_table(task)
    for name, split in task.splits().items():
        for count in task.group_counts(split).tolist():
            assert str(count) in table, name
    assert "* bias-aligned; samples (conflicting): train 160 (" in table
    assert f"test 200 ({100 * task.conflict(task.test).float().mean():.3g} %)" in table


def test_with_many_bias_values_the_table_has_two_columns() -> None:
    table = group_table(flat_task(classes=2, biases=12))
    assert "conflicting" in table
    assert "33 " in table or "33\n" in table  # 11 bias values, three samples of each

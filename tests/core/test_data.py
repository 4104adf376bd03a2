"""The data contract: one group rule, declared alignment, contradictions refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from debiasbench import Batch, Split, Task
from debiasbench.common.errors import DataError, SupervisionError
from debiasbench.testing import toy_task


def small(y: list[int], bias: list[int]) -> Split:
    x = torch.zeros(len(y), 3, 4, 4, dtype=torch.uint8)
    return Split(x, torch.tensor(y), torch.tensor(bias), num_biases=3)


def task(train: Split, aligned: list[list[bool]] | None = None) -> Task:
    return Task(
        train=train,
        val=small([0, 1], [0, 1]),
        test=small([0, 1], [2, 2]),
        classes=("cat", "dog"),
        biases=("in", "out", "sky"),
        aligned=torch.tensor(aligned or [[True, False, False], [False, True, True]]),
    )


def test_group_is_class_major() -> None:
    split = small([0, 0, 1, 1], [0, 2, 0, 2])
    assert split.group.tolist() == [0, 2, 3, 5]


def test_conflict_follows_the_declared_alignment() -> None:
    made = task(small([0, 0, 1, 1], [0, 2, 0, 2]))
    assert made.conflict(made.train).tolist() == [False, True, True, False]


def test_group_counts_include_empty_groups() -> None:
    made = task(small([0, 0, 1], [0, 0, 2]))
    assert made.group_counts(made.train).tolist() == [2, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("y", "bias", "complaint"),
    [
        ([0, 0], [0, 1], "Class 'dog' has no training sample"),
        ([0, 2], [0, 0], "train split has y values from 0 to 2, must be in 0 to 1"),
        ([0, 1], [0, 3], "train split has bias values from 0 to 3, must be in 0 to 2"),
        ([0, -1], [0, 0], "train split has y values from -1 to 0"),
    ],
)
def test_labels_that_contradict_the_names_are_refused(
    y: list[int], bias: list[int], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        task(small(y, bias))


def test_a_bias_attribute_with_a_single_value_is_refused() -> None:
    split = small([0, 1], [1, 1])
    made = task(split)  # the test split has another value
    with pytest.raises(DataError, match="All samples have the same bias value, 'out'"):
        replace(made, val=split, test=split)
    one = Split(split.x, split.y, torch.zeros(2, dtype=torch.int64), num_biases=1)
    aligned = torch.ones(2, 1, dtype=torch.bool)
    with pytest.raises(DataError, match="same bias value, 'in'"):
        Task(one, one, one, classes=("cat", "dog"), biases=("in",), aligned=aligned)


def test_a_single_class_is_refused() -> None:
    split = small([0, 0], [0, 1])
    aligned = torch.tensor([[True, False, False]])
    with pytest.raises(DataError, match="All samples have the same class, 'cat'"):
        Task(split, split, split, ("cat",), ("in", "out", "sky"), aligned)


def test_a_test_split_may_lack_a_class_or_a_bias_value() -> None:
    made = replace(task(small([0, 1], [0, 1])), test=small([0], [0]))
    assert (made.group_counts(made.test) > 0).sum() == 1


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match="The train split is empty"):
        task(small([], []))


def test_splits_of_different_image_sizes_are_refused() -> None:
    train = small([0, 1], [0, 0])
    larger = replace(train, x=torch.zeros(2, 3, 5, 5, dtype=torch.uint8))
    with pytest.raises(DataError, match="differ from the training samples"):
        task(larger)


def test_alignment_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(DataError, match=r"aligned has shape \(1, 3\)"):
        task(small([0, 1], [0, 0]), aligned=[[True, False, False]])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"y": torch.tensor([0, 1], dtype=torch.int32)}, "y is int32, must be int64"),
        ({"bias": torch.tensor([0.0, 1.0])}, "bias is float32, must be int64"),
        ({"x": torch.zeros(2, 3, 4, 4, dtype=torch.float64)}, "x is float64, must be uint8"),
    ],
)
def test_tensors_of_another_type_are_refused(
    change: dict[str, torch.Tensor], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        task(replace(small([0, 1], [0, 0]), **change))


def test_alignment_must_be_bool_since_its_complement_is_taken() -> None:
    with pytest.raises(DataError, match=r"aligned is torch\.int64, must be bool"):
        task(small([0, 1], [0, 0]), aligned=[[1, 0, 0], [0, 1, 1]])  # type: ignore[list-item]


def test_normalisation_must_fit_the_channels() -> None:
    made = task(small([0, 1], [0, 0]))
    with pytest.raises(DataError, match="mean has 1 values for 3 channels"):
        replace(made, mean=(0.5,))


def test_the_fingerprint_changes_with_a_single_pixel_or_label() -> None:
    train = small([0, 1], [0, 0])
    x = train.x.clone()
    x[1, 2, 3, 3] = 1
    prints = {
        task(train).fingerprint(),
        task(replace(train, x=x)).fingerprint(),
        task(replace(train, bias=torch.tensor([0, 1]))).fingerprint(),
    }
    assert len(prints) == 3
    assert task(small([0, 1], [0, 0])).fingerprint() in prints


@pytest.mark.parametrize(
    ("label", "level"), [("group", "groups"), ("bias", "groups"), ("conflict", "conflict")]
)
def test_an_undeclared_label_is_absent_and_the_error_names_the_declaration(
    label: str, level: str
) -> None:
    batch = Batch(torch.zeros(2, 3), torch.zeros(2), torch.arange(2))
    assert label not in vars(batch)
    with pytest.raises(SupervisionError, match=rf'Supervision\(train="{level}"\)'):
        getattr(batch, label)


def test_an_unknown_batch_field_is_an_attribute_error_that_lists_the_fields() -> None:
    batch = Batch(torch.zeros(2, 3), torch.zeros(2), torch.arange(2), teacher=torch.ones(2))
    assert batch.teacher.tolist() == [1, 1]
    with pytest.raises(AttributeError, match="it has x, y, index, teacher"):
        _ = batch.students


def test_the_toy_task_can_leave_a_group_out_of_training() -> None:
    made = toy_task(absent=(1, 0))
    assert made.group_counts(made.train)[2] == 0
    assert (made.group_counts(made.test) > 0).all()

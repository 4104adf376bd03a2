"""Texts are kept as bytes, and read back as they were."""

from __future__ import annotations

import pytest
import torch

from debiasbench import Split, Task
from debiasbench.common.errors import DataError
from debiasbench.core.inputs import length, readable, single, tensors
from debiasbench.core.texts import Texts

PAIRS = [("A cat.", "Not a dog?"), ("Zwölf Boxkämpfer", "日本語"), ("x", "\U0001f600 half")]


def test_texts_are_read_back_one_by_one_and_in_parts() -> None:
    texts = Texts.of(PAIRS)
    assert (len(texts), texts.number, length(texts)) == (3, 2, 3)
    assert list(texts) == PAIRS
    assert [texts[i] for i in range(3)] == PAIRS
    assert list(texts.between(1, 3)) == PAIRS[1:]
    assert list(tensors(texts)) == ["utf8", "ends"]


def test_many_texts_are_read_in_order() -> None:
    many = [(f"text {i}",) for i in range(3000)]
    assert list(Texts.of(many)) == many


@pytest.mark.parametrize(("first", "last"), [(0, 3), (1, 3), (1, 2), (0, 0), (2, 2)])
def test_a_part_has_the_texts_of_its_samples(first: int, last: int) -> None:
    part = Texts.of(PAIRS).part(first, last)
    assert [part[i] for i in range(len(part))] == PAIRS[first:last]
    assert len(part.utf8) == sum(len(text.encode()) for pair in PAIRS[first:last] for text in pair)


@pytest.mark.parametrize("first", [-1, 3])
def test_a_sample_that_there_is_not_is_an_error(first: int) -> None:
    with pytest.raises(IndexError):
        Texts.of(PAIRS)[first]


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ([], "There are no texts"),
        ([("a", "b"), ("a",)], "Sample 1 has 1 texts, others have 2"),
        ([("a",), (" \n",)], "Sample 1 has an empty text"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(samples: list[tuple[str, ...]], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Texts.of(samples)


def split(texts: Texts) -> Split:
    n = len(texts)
    return Split(texts, torch.arange(n) % 2, torch.arange(n) // 2 % 2, 2)


def task(**splits: Split) -> Task:
    own = split(Texts.of([("a",), ("b",), ("c",), ("d",)]))
    every = {"train": own, "val": own, "test": own, **splits}
    return Task(**every, classes=("x", "y"), biases=("u", "v"), aligned=torch.eye(2).bool())


def test_a_task_of_texts_has_their_number_as_its_shape_and_their_bytes_in_its_fingerprint() -> None:
    assert task().shape.inputs == {"texts": (1,)}
    other = split(Texts.of([("a",), ("b",), ("c",), ("e",)]))
    assert task().fingerprint() != task(test=other).fingerprint()
    assert task().fingerprint() == task().fingerprint()


def test_splits_must_have_equally_many_texts() -> None:
    pairs = split(Texts.of([("a", "b")] * 4))
    with pytest.raises(DataError, match="test split's samples differ"):
        task(test=pairs)


def test_texts_are_no_inputs_of_a_network() -> None:
    with pytest.raises(DataError, match="no tokenizer to read them: use --model hf:NAME"):
        readable(Texts.of(PAIRS))
    with pytest.raises(DataError, match="mean needs inputs that are one tensor, but x is text"):
        single(Texts.of(PAIRS), "mean")

"""Which bias values are aligned with a class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from debiasbench.common.errors import DataError, DebiasbenchError
from debiasbench.files.importing import Source, import_data
from tests.files.importing.birds import (
    HEAD,
    LABELS,
    PLACES,
    bird_rows,
    changed,
)


def test_a_bias_is_aligned_if_training_has_it_more_often_than_by_chance(
    birds: Source, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i, (file, *_) in enumerate(bird_rows()):
        label = "abc"[rng.integers(3)]
        rows.append((file, label, "uvwxyz"[rng.integers(6)], ("train", "val", "test")[i // 4 % 3]))
    source = changed(birds, [(*HEAD, "s"), *rows], split="s")
    task = import_data("birds", source, tmp_path).task
    train = [row for row in rows if row[3] == "train"]
    for c, label in enumerate(task.classes):
        for b, where in enumerate(task.biases):
            members = [row for row in train if row[1] == label]
            with_it = sum(row[2] == where for row in members) / len(members)
            overall = sum(row[2] == where for row in train) / len(train)
            assert bool(task.aligned[c, b]) == (with_it > overall + 1e-12)


def test_alignment_can_be_given_for_names_with_commas_and_colons(
    birds: Source, tmp_path: Path
) -> None:
    odd = {"land": "a", "water": "a:b", "field": "b:c,a:b", "lake": "c"}
    rows = [(f, odd[label], odd[where]) for f, label, where in bird_rows()]
    source = changed(birds, [HEAD, *rows], aligned="a:b:c,a:b , a:b:b:c,a:b")
    with pytest.raises(DataError, match=r"'a' has no aligned bias value.*Add one to --aligned"):
        import_data("birds", replace(source, aligned="a:b:c"), tmp_path)
    task = import_data("birds", source, tmp_path).task
    assert (task.classes, task.biases) == (("a", "a:b"), ("b:c,a:b", "c"))
    assert task.aligned.tolist() == [[True, False], [True, False]]


def test_alignment_can_be_given_for_one_of_several_columns(birds: Source, tmp_path: Path) -> None:
    rows = [(*row, "winter" if i % 3 else "summer") for i, row in enumerate(bird_rows())]
    source = changed(
        birds,
        [(*HEAD, "season"), *rows],
        bias=("place", "season"),
        aligned="land:place=field,water:place=lake,season=winter",
    )
    task = import_data("birds", source, tmp_path).task
    # field in summer and in winter, lake in summer and in winter
    assert task.aligned.tolist() == [[True, True, False, False], [False, False, False, True]]


@pytest.mark.parametrize(
    ("aligned", "message"),
    [
        ("land:field,watr:lake", "'watr:lake' is not a CLASS:BIAS pair. Did you mean 'water'"),
        ("land:fild", "'land:fild' is not a CLASS:BIAS pair. Did you mean 'field'"),
        ("land", "'land' is not a CLASS:BIAS pair"),
        ("land:fields", "'land:fields' is not a CLASS:BIAS pair"),
        ("land:field", "'water' has no aligned bias value. Add one to --aligned"),
        ("land:field,land:lake,water:field,water:lake", "All images are bias-aligned"),
    ],
)
def test_an_alignment_that_fits_no_group_is_refused(
    aligned: str, message: str, birds: Source, tmp_path: Path
) -> None:
    with pytest.raises(DebiasbenchError, match=message):
        import_data("birds", replace(birds, aligned=aligned), tmp_path)


def test_a_bias_that_is_independent_of_the_class_is_refused(birds: Source, tmp_path: Path) -> None:
    rows = [
        (f, LABELS[i % 2], PLACES[i // 2 % 2], ("train", "val", "test")[i // 4 % 3])
        for i, (f, *_) in enumerate(bird_rows(36))
    ]
    source = changed(birds, [(*HEAD, "s"), *rows], split="s")
    with pytest.raises(
        DataError,
        match=r"as by chance\. Define the aligned values with --aligned",
    ):
        import_data("birds", source, tmp_path)
    import_data("birds", replace(source, aligned="land:field,water:lake"), tmp_path)

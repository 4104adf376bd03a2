"""Check what a data set loads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from debiasbench.common.options import parse
from debiasbench.common.randomness import seeded
from debiasbench.core.data import Dataset, Task
from debiasbench.core.inputs import single
from debiasbench.core.prepare import Prepare
from debiasbench.core.settings import Training, check_search
from debiasbench.testing.findings import check_space

if TYPE_CHECKING:
    from debiasbench.core.data import Augment


def check_dataset(dataset: Dataset, root: Path = Path("data")) -> Task:
    """Check that a data set loads the same valid task each time, and return the task.

    All files in `sources` must exist. The augmentation must keep the shape of images and draw
    random numbers only from the generator that it is given.
    """
    with seeded(0):
        task = dataset.load(root)
    with seeded(1):
        again = dataset.load(root)
    assert task.fingerprint() == again.fingerprint(), (
        "Two calls of load returned different data: seed every random choice with an option"
    )
    assert task.aligned.any(), "No (class, bias) pair is aligned"
    parse(Training, dataset.training, owner=f"data set {type(dataset).__name__}")
    check_space(lambda: check_search(dataset.search))
    sources = dataset.sources(root)
    if missing := [str(source) for source in sources if not source.exists()]:
        raise AssertionError(f"sources returned {missing[0]}, which does not exist")
    assert not (sources and task.augment is not None), (
        "A task made from files is cached without `augment`: return it from augmentation() instead"
    )
    if (augment := task.augment or dataset.augmentation()) is not None:
        _check_augment(augment, task)
    return task


def _check_augment(augment: Augment, task: Task) -> None:
    x = Prepare(replace(task, mean=None, std=None))(single(task.train.x, "augment")[:8])
    assert isinstance(x, torch.Tensor)
    augmented = []
    for seed in (0, 1):
        with seeded(seed):
            augmented.append(augment(x.clone(), torch.Generator().manual_seed(0)))
    assert augmented[0].shape == x.shape, (
        f"augment changed the shape from {tuple(x.shape)} to {tuple(augmented[0].shape)}"
    )
    assert torch.equal(*augmented), (
        "augment depends on global generators: draw only from the generator that it is given"
    )

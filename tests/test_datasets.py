"""Builtin data sets: counts, colours and alignment as published."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
import torch

from debiasbench.data import Task
from debiasbench.datasets._colour import COLOURS, THRESHOLD, colour, take_per_class
from debiasbench.datasets.cmnist import CMNIST
from debiasbench.datasets.digits import Digits
from debiasbench.errors import DataError
from debiasbench.testing import check_dataset

NOWHERE = Path("nowhere")


@pytest.fixture(scope="module")
def digits() -> Task:
    return check_dataset(Digits(), NOWHERE)


def test_digits_has_every_image_of_the_source_in_one_split(digits: Task) -> None:
    sizes = {name: len(split) for name, split in digits.splits().items()}
    assert sizes == {"train": 997, "val": 300, "test": 500}
    assert digits.shape.input == (3, 28, 28)


def test_taking_some_of_each_class_leaves_the_others_and_nothing_twice() -> None:
    y = torch.arange(57) % 10
    taken, rest = take_per_class(y, 3, torch.Generator())
    assert y[taken].bincount().tolist() == [3] * 10
    assert sorted([*taken.tolist(), *rest.tolist()]) == list(range(57))


def test_five_percent_of_each_class_conflict_in_training(digits: Task) -> None:
    conflict = digits.conflict(digits.train)
    per_class = digits.train.y.bincount()
    assert conflict.sum() == sum(round(0.05 * n) for n in per_class.tolist()) == 50


@pytest.mark.parametrize("split", ["val", "test"])
def test_validation_and_test_have_equal_groups(digits: Task, split: str) -> None:
    counts = digits.group_counts(digits.splits()[split])  # type: ignore[index]
    assert counts.unique().numel() == 1
    assert counts.sum() == len(digits.splits()[split])  # type: ignore[index]


def test_every_colour_is_its_own_among_conflicting_samples() -> None:
    task = Digits(ratio=1.0).load(NOWHERE)
    assert (task.train.y != task.train.bias).all()
    assert (task.group_counts(task.train).view(10, 10) > 0).sum() > 80


@pytest.mark.parametrize("ratio", [0.0, 0.005, 0.2])
def test_the_ratio_is_a_dial(ratio: float) -> None:
    task = Digits(ratio=ratio).load(NOWHERE)
    share = task.conflict(task.train).float().mean().item()
    assert share == pytest.approx(ratio, abs=0.006)


def test_validation_and_test_are_the_same_at_every_ratio(digits: Task) -> None:
    other = Digits(ratio=0.2).load(NOWHERE)
    for name in ("val", "test"):
        own, its = digits.splits()[name], other.splits()[name]  # type: ignore[index]
        assert torch.equal(own.x, its.x)
        assert torch.equal(own.bias, its.bias)


def test_the_split_seed_moves_digits_and_colours() -> None:
    assert Digits(split_seed=1).load(NOWHERE).fingerprint() != Digits().load(NOWHERE).fingerprint()


def test_pixels_above_the_threshold_take_the_pure_colour_and_the_rest_stays_grey() -> None:
    grey = torch.tensor([[[0, 1, THRESHOLD, THRESHOLD + 1, 255]]], dtype=torch.uint8)
    image = colour(grey, torch.tensor([5]))[0]  # cyan
    assert image[:, 0].T.tolist() == [
        [0, 0, 0], [1, 1, 1], [100, 100, 100], [0, 255, 255], [0, 255, 255],
    ]  # fmt: skip


def test_the_palette_is_the_published_one() -> None:
    assert [rgb for _, rgb in COLOURS] == [
        (255, 0, 0), (255, 128, 0), (255, 255, 0), (128, 255, 0), (0, 255, 0),
        (0, 255, 255), (0, 0, 255), (128, 0, 255), (255, 0, 128), (255, 0, 255),
    ]  # fmt: skip


def write_mnist(root: Path, train: int = 5200, test: int = 200) -> Path:
    """Write MNIST's four files with made-up images."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, n in (("train", train), ("t10k", test)):
        images = bytes((i + j) % 256 for i in range(n) for j in range(784))
        header = struct.pack(">iiii", 0x803, n, 28, 28)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images)
        labels = struct.pack(">ii", 0x801, n) + bytes(i % 10 for i in range(n))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)
    return root


def test_cmnist_is_made_from_the_files_of_mnist(tmp_path: Path) -> None:
    task = check_dataset(CMNIST(ratio=0.1), write_mnist(tmp_path))
    assert [len(s) for s in task.splits().values()] == [200, 5000, 200]
    assert task.conflict(task.train).sum() == 20
    assert task.group_counts(task.val).unique().tolist() == [50]


def test_a_missing_file_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        CMNIST().load(tmp_path)
    assert str(tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte") in str(error.value)
    assert "--data-root or DEBIASBENCH_DATA" in str(error.value)


def test_a_missing_test_file_is_not_blamed_on_the_others(tmp_path: Path) -> None:
    (write_mnist(tmp_path) / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte is missing"):
        CMNIST().load(tmp_path)


@pytest.mark.parametrize(
    ("file", "keep"),
    [
        ("train-images-idx3-ubyte", 0),
        ("train-images-idx3-ubyte", 10),
        ("train-images-idx3-ubyte", 1000),
        ("t10k-labels-idx1-ubyte", 0),
        ("t10k-labels-idx1-ubyte", 100),
    ],
)
def test_a_truncated_file_is_named(tmp_path: Path, file: str, keep: int) -> None:
    path = write_mnist(tmp_path) / "MNIST" / "raw" / file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"truncated or no MNIST file.*fetch them again") as error:
        CMNIST().load(tmp_path)
    assert file in str(error.value)


MNIST_ROOT = Path(os.environ.get("DEBIASBENCH_TEST_DATA", "data"))
real_mnist = pytest.mark.skipif(
    not (MNIST_ROOT / "MNIST" / "raw").is_dir(),
    reason="no real MNIST: put MNIST/raw into the folder DEBIASBENCH_TEST_DATA names",
)


@real_mnist
def test_cmnist_of_real_mnist_has_the_published_sizes() -> None:
    task = CMNIST(ratio=0.01).load(MNIST_ROOT)
    assert [len(s) for s in task.splits().values()] == [55_000, 5000, 10_000]
    share = task.conflict(task.train).float().mean().item()
    assert share == pytest.approx(0.01, abs=1e-4)
    counts = task.group_counts(task.test).view(10, 10)
    assert (counts.max(1).values - counts.min(1).values).max() <= 1


@real_mnist
def test_the_colour_rule_gives_the_three_colours_of_the_released_cmnist() -> None:
    # the one released image at hand: a 0 coloured as 5, with 666 black, 96 cyan and 22 grey pixels
    from torchvision.datasets import MNIST

    mnist = MNIST(str(MNIST_ROOT), train=True, download=False)
    zeros = mnist.data[mnist.targets == 0]
    painted = colour(zeros, torch.full((len(zeros),), 5))
    cyan = torch.tensor([0, 255, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    grey = torch.full((1, 3, 1, 1), 64, dtype=torch.uint8)
    of_cyan = (painted == cyan).all(1).sum((1, 2))
    of_grey = (painted == grey).all(1).sum((1, 2))
    black = (painted == 0).all(1).sum((1, 2))
    assert ((of_cyan == 96) & (of_grey == 22) & (black == 666)).sum() == 1

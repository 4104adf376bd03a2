"""Builtin data sets: counts, colours and alignment as published."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from debiasbench.common.errors import DataError
from debiasbench.core.data import Task
from debiasbench.datasets._colour import (
    COLOURS,
    LFF_COLOURS,
    THRESHOLD,
    colour,
    lff_colour,
    placed,
    take_per_class,
)
from debiasbench.datasets.cmnist import CMNIST
from debiasbench.datasets.digits import Digits
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


SAMPLE = MNIST_ROOT / "samples" / "cmnist_0_label0_bias5.png"


@real_mnist
@pytest.mark.skipif(
    not SAMPLE.is_file(),
    reason="no released image: put samples/cmnist_0_label0_bias5.png into DEBIASBENCH_TEST_DATA",
)
def test_the_colour_rule_gives_the_released_image_bit_for_bit() -> None:
    from torchvision.datasets import MNIST

    mnist = MNIST(str(MNIST_ROOT), train=True, download=False)
    zeros = mnist.data[mnist.targets == 0]
    painted = colour(zeros, torch.full((len(zeros),), 5))
    with Image.open(SAMPLE) as image:
        released = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)
    assert (painted == released).flatten(1).all(1).sum() == 1


def test_lffs_colours_are_shades_of_one_colour_an_image_with_less_noise_at_more_severity() -> None:
    grey = torch.full((500, 4, 4), 255, dtype=torch.uint8)
    grey[:, 0, 0] = 51
    bias = torch.arange(500) % 10
    spread = []
    for severity in (1, 3, 5):
        painted = lff_colour(grey, bias, torch.Generator().manual_seed(0), severity=severity)
        assert torch.allclose(painted[:, :, 0, 0].float(), painted[:, :, 1, 1].float() / 5, atol=1)
        mean = 255 * torch.tensor(LFF_COLOURS)[bias]
        spread.append((painted[:, :, 1, 1] - mean).abs().mean().item())
    assert spread[0] > spread[1] > spread[2]


def test_cmnist_has_a_variant_with_lffs_palette(tmp_path: Path) -> None:
    root = write_mnist(tmp_path)
    lff, pure = (check_dataset(CMNIST(0.1, variant=v), root) for v in ("lff", "disent"))
    assert torch.equal(lff.train.bias, pure.train.bias)
    assert not torch.equal(lff.train.x, pure.train.x)
    assert lff.biases[0] == "colour 0"


def test_cmnist_is_read_as_it_was_released(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    for part, n in (("5pct/align", 10), ("5pct/conflict", 4), ("5pct/valid", 10), ("test", 20)):
        for i in range(n):
            bias = (i + 1) % 10 if "conflict" in part else i % 10
            file = tmp_path / "cmnist" / part / str(i % 10) / f"{i}_{i % 10}_{bias}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = torch.randint(0, 256, (28, 28, 3), dtype=torch.uint8, generator=rng)
            Image.fromarray(pixels.numpy()).save(file)
    task = check_dataset(CMNIST(ratio=0.05, variant="released"), tmp_path)
    assert [len(s) for s in task.splits().values()] == [14, 10, 20]
    assert task.conflict(task.train).sum() == 4


def test_digits_have_a_second_shortcut_with_a_dial_of_its_own(digits: Task) -> None:
    task = check_dataset(Digits(ratio=0.05, place_ratio=0.2), NOWHERE)
    assert len(task.biases) == 100
    colour_of, place_of = task.train.bias // 10, task.train.bias % 10
    assert (colour_of != task.train.y).float().mean() == pytest.approx(0.05, abs=0.01)
    assert (place_of != task.train.y).float().mean() == pytest.approx(0.2, abs=0.01)
    either = (colour_of != task.train.y) | (place_of != task.train.y)
    assert torch.equal(task.conflict(task.train), either)
    assert torch.equal(task.train.y, digits.train.y)
    for value in (task.test.bias // 10, task.test.bias % 10):  # both are balanced in every class
        assert (task.test.y * 10 + value).bincount(minlength=100).unique().tolist() == [5]


def test_a_place_moves_the_digit_and_loses_none_of_it() -> None:
    grey = torch.zeros(10, 28, 28, dtype=torch.uint8)
    grey[:, 10:18, 10:18] = 200
    moved = placed(grey, torch.arange(10))
    centres = [(m.nonzero().double().mean(0)).tolist() for m in moved]
    assert len({tuple(c) for c in centres}) == 10
    assert centres[5][0] - centres[0][0] == pytest.approx(8)
    assert centres[1][1] - centres[0][1] == pytest.approx(2)
    assert moved.flatten(1).sum(1).unique().numel() == 1


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

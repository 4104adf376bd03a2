"""Coloured MNIST: made from MNIST, or read as released."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from debiasbench.common.errors import DataError
from debiasbench.datasets.cmnist import CMNIST
from debiasbench.testing import check_dataset
from tests.datasets.mnist import MNIST_ROOT, real_mnist, write_mnist


def test_cmnist_is_made_from_the_files_of_mnist(tmp_path: Path) -> None:
    task = check_dataset(CMNIST(ratio=0.1), write_mnist(tmp_path))
    assert [len(s) for s in task.splits().values()] == [200, 5000, 200]
    assert task.conflict(task.train).sum() == 20
    assert task.group_counts(task.val).unique().tolist() == [50]


def test_the_validation_split_can_be_as_biased_as_training_and_the_others_stay(
    tmp_path: Path,
) -> None:
    root = write_mnist(tmp_path)
    balanced = CMNIST(ratio=0.1).load(root)
    biased = check_dataset(CMNIST(ratio=0.1, val="biased"), root)
    assert biased.conflict(biased.val).sum() == 500
    assert torch.equal(biased.val.y, balanced.val.y)
    for name in ("train", "test"):
        one, other = biased.splits()[name], balanced.splits()[name]
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.bias, other.bias)


def test_a_missing_file_is_named_with_advice(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        CMNIST().load(tmp_path)
    assert str(tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte") in str(error.value)
    assert "--data-root or DEBIASBENCH_DATA" in str(error.value)


def test_the_missing_file_is_named(tmp_path: Path) -> None:
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
    with pytest.raises(
        DataError, match=r"truncated or not an MNIST file.*download them again"
    ) as error:
        CMNIST().load(tmp_path)
    assert file in str(error.value)


@real_mnist
def test_cmnist_of_real_mnist_has_the_published_sizes() -> None:
    task = CMNIST(ratio=0.01).load(MNIST_ROOT)
    assert [len(s) for s in task.splits().values()] == [55_000, 5000, 10_000]
    share = task.conflict(task.train).float().mean().item()
    assert share == pytest.approx(0.01, abs=1e-4)
    counts = task.group_counts(task.test).view(10, 10)
    assert (counts.max(1).values - counts.min(1).values).max() <= 1


def test_cmnist_has_a_variant_with_the_palette_of_lff(tmp_path: Path) -> None:
    root = write_mnist(tmp_path)
    lff, pure = (check_dataset(CMNIST(0.1, variant=v), root) for v in ("lff", "disent"))
    assert torch.equal(lff.train.bias, pure.train.bias)
    assert not torch.equal(lff.train.x, pure.train.x)
    assert lff.biases[0] == "colour 0"


def test_the_released_cmnist_is_read(tmp_path: Path) -> None:
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

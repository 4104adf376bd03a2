"""Biased CIFAR10-C: read from CIFAR-10's binary version, corrupted by class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from debiasbench.common.errors import DataError
from debiasbench.core.data import Task
from debiasbench.datasets import cifar10c
from debiasbench.datasets._corruptions import NAMES, corrupt
from debiasbench.datasets.cifar10c import CIFAR10C, FOLDER, TEST_FILES, TRAIN_FILES
from debiasbench.files.augment import CropFlip
from debiasbench.testing import check_dataset

RECORDS = 100  # in each made-up file, ten of each class


def write_cifar10(root: Path) -> Path:
    """Write CIFAR-10's six files with made-up images: gradients, a number in the first pixels."""
    folder = root / FOLDER
    folder.mkdir(parents=True)
    ramp = np.add.outer(np.arange(32), np.arange(32))  # (32, 32), 0 to 62
    for at, name in enumerate((*TRAIN_FILES, *TEST_FILES)):
        records = np.zeros((RECORDS, 3073), dtype=np.uint8)
        for i in range(RECORDS):
            channels = np.stack([60 + ramp * (1 + (i + c) % 3) for c in range(3)])
            records[i, 0] = i % 10
            records[i, 1:] = channels.reshape(-1)
            records[i, 1:3] = at, i
        records.tofile(folder / name)
    return root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cifar10c, "RECORDS", RECORDS)
    monkeypatch.setattr(cifar10c, "VAL_PER_CLASS", 10)
    return write_cifar10(tmp_path)


def test_it_is_made_from_the_files_of_cifar10(root: Path) -> None:
    task = check_dataset(CIFAR10C(ratio=0.1), root)
    assert [len(s) for s in task.splits().values()] == [400, 100, 100]
    assert task.shape.input == (3, 32, 32)
    assert task.biases == NAMES
    assert (task.classes[0], task.classes[9]) == ("airplane", "truck")
    conflict = task.conflict(task.train)
    assert task.train.y[conflict].bincount().tolist() == [4] * 10


@pytest.mark.parametrize("split", ["val", "test"])
def test_validation_and_test_have_every_corruption_equally_often(root: Path, split: str) -> None:
    task = CIFAR10C().load(root)
    counts = task.group_counts(task.splits()[split])  # type: ignore[index]
    assert counts.tolist() == [1] * 100


def test_validation_and_test_are_the_same_at_every_ratio(root: Path) -> None:
    one, other = CIFAR10C(ratio=0.0).load(root), CIFAR10C(ratio=0.5).load(root)
    for a, b in ((one.val, other.val), (one.test, other.test)):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.bias, b.bias)
    assert not torch.equal(one.train.x, other.train.x)


def test_the_validation_split_can_be_as_biased_as_training_and_the_others_stay(root: Path) -> None:
    balanced, biased = (CIFAR10C(ratio=0.1, val=v).load(root) for v in ("balanced", "biased"))
    assert biased.conflict(biased.val).float().mean() == pytest.approx(0.1, abs=0.02)
    assert balanced.conflict(balanced.val).float().mean() == pytest.approx(0.9, abs=0.02)
    assert torch.equal(biased.val.y, balanced.val.y)
    for name in ("train", "test"):
        one, other = biased.splits()[name], balanced.splits()[name]
        assert torch.equal(one.x, other.x)


def test_each_image_is_in_one_split_and_has_the_corruption_of_its_bias(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = CIFAR10C(ratio=0.3, severity=3).load(root)
    monkeypatch.setattr(CIFAR10C, "_corrupted", lambda self, x, bias, index: x)
    clean = CIFAR10C(ratio=0.3, severity=3).load(root)
    seen = []
    for after, before in zip(task.splits().values(), clean.splits().values(), strict=True):
        file, record = before.x[:, 0, 0, :2].long().T
        number = file * RECORDS + record  # (N,) position among all images
        assert torch.equal(before.y, record % 10)
        for k, name in enumerate(NAMES):
            members = after.bias == k
            wanted = corrupt(name, before.x[members], 3, number[members])
            assert torch.equal(after.x[members], wanted)
        seen += number.tolist()
    assert sorted(seen) == list(range(600))
    test_file = clean.test.x[:, 0, 0, 0]
    assert (test_file == 5).all()


def test_severity_and_split_seed_change_the_data(root: Path) -> None:
    task, milder, other = (
        data.load(root) for data in (CIFAR10C(), CIFAR10C(severity=1), CIFAR10C(split_seed=1))
    )
    assert torch.equal(task.train.bias, milder.train.bias)
    assert not torch.equal(task.train.x, milder.train.x)
    assert not torch.equal(task.test.bias, other.test.bias)
    assert not torch.equal(task.val.x[:, 0, 0, :2], other.val.x[:, 0, 0, :2])


def test_training_images_are_cropped_and_mirrored_by_default() -> None:
    assert CIFAR10C().augmentation() == CropFlip(padding=4)
    assert CIFAR10C(augment=False).augmentation() is None


def test_the_sources_are_the_files_that_are_read(root: Path) -> None:
    sources = CIFAR10C().sources(root)
    assert len(sources) == 6
    assert all(path.is_file() for path in sources)


@pytest.mark.parametrize("file", ["data_batch_3.bin", "test_batch.bin"])
def test_a_missing_file_is_named_with_advice(root: Path, file: str) -> None:
    (root / FOLDER / file).unlink()
    with pytest.raises(DataError, match="is missing") as error:
        CIFAR10C().load(root)
    assert str(root / FOLDER / file) in str(error.value)
    assert "debiasbench data prepare cifar10c" in str(error.value)
    assert "--data-root or DEBIASBENCH_DATA" in str(error.value)


@pytest.mark.parametrize("size", [0, 3073 * RECORDS - 1, 3073 * (RECORDS - 1), 3074 * RECORDS])
def test_a_file_of_another_size_is_named(root: Path, size: int) -> None:
    # records of CIFAR-100 have 3074 bytes
    (root / FOLDER / "data_batch_2.bin").write_bytes(bytes(size))
    with pytest.raises(DataError, match=rf"data_batch_2.bin has {size} bytes, must have 307300"):
        CIFAR10C().load(root)


def test_a_label_that_is_out_of_range_is_named(root: Path) -> None:
    path = root / FOLDER / "data_batch_5.bin"
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    with pytest.raises(DataError, match=r"data_batch_5.bin has the label 10, must have 0 to 9"):
        CIFAR10C().load(root)


CIFAR_ROOT = Path(os.environ.get("DEBIASBENCH_TEST_DATA", "data"))
real_cifar10 = pytest.mark.skipif(
    not (CIFAR_ROOT / FOLDER).is_dir(),
    reason=f"no real CIFAR-10: put {FOLDER} into the folder DEBIASBENCH_TEST_DATA names",
)


@pytest.fixture(scope="module")
def real() -> Task:
    return CIFAR10C().load(CIFAR_ROOT)


@real_cifar10
def test_real_images_have_the_published_sizes(real: Task) -> None:
    assert [len(s) for s in real.splits().values()] == [45_000, 5000, 10_000]
    conflict = real.conflict(real.train)
    assert real.train.y[conflict].bincount().tolist() == [45] * 10
    assert real.group_counts(real.val).unique().tolist() == [50]
    assert real.group_counts(real.test).unique().tolist() == [100]


@real_cifar10
def test_real_images_of_low_contrast_have_as_few_grey_levels_as_released_ones(real: Task) -> None:
    # a contrast of 0.15 leaves 255 * 0.15 = 38 levels; released images span 37
    contrast = real.train.x[real.train.bias == NAMES.index("contrast")]
    span = contrast.amax((2, 3)).long() - contrast.amin((2, 3))
    assert 30 < span.max() <= 39


@real_cifar10
def test_real_images_have_the_channel_means_of_cifar10(
    real: Task,
) -> None:
    kept = [NAMES.index(name) for name in ("contrast", "elastic", "jpeg", "pixelate")]
    members = torch.isin(real.test.bias, torch.tensor(kept))
    mean = real.test.x[members].float().mean((0, 2, 3)) / 255
    assert mean.tolist() == pytest.approx(real.mean, abs=0.02)

"""What BFFHQ, Waterbirds and CelebA have in common."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from debiasbench.common.errors import DataError
from debiasbench.datasets.bffhq import BFFHQ
from debiasbench.datasets.celeba import CelebA
from debiasbench.datasets.waterbirds import Waterbirds
from tests.datasets.folders import (
    bffhq,
    celeba,
    waterbirds,
)


def all_files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("make", ["bffhq", "waterbirds", "celeba"])
def test_the_sources_contain_every_file_that_is_read(tmp_path: Path, make: str) -> None:
    dataset = {"bffhq": BFFHQ(), "waterbirds": Waterbirds(), "celeba": CelebA()}[make]
    {"bffhq": bffhq, "waterbirds": waterbirds, "celeba": celeba}[make](tmp_path)
    contained = set[Path]()
    for source in dataset.sources(tmp_path):
        contained |= all_files(source) if source.is_dir() else {source}
    assert contained == all_files(tmp_path)
    assert all(len(path.relative_to(tmp_path).parts) > 1 for path in contained)


@pytest.mark.parametrize("dataset", [BFFHQ(), Waterbirds(), CelebA()])
def test_a_missing_data_set_is_an_error_with_advice(
    tmp_path: Path, dataset: BFFHQ | Waterbirds | CelebA
) -> None:
    with pytest.raises(DataError, match=r"--data-root or DEBIASBENCH_DATA") as error:
        dataset.load(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("dataset", [BFFHQ(), Waterbirds(), CelebA()])
def test_training_batches_are_changed_and_keep_their_shape(
    dataset: BFFHQ | Waterbirds | CelebA,
) -> None:
    x = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    changed = dataset.augmentation()(x, torch.Generator().manual_seed(1))
    assert changed.shape == x.shape
    assert not torch.equal(changed, x)

"""BFFHQ is read from its released folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from debiasbench.common.errors import DataError
from debiasbench.datasets.bffhq import BFFHQ
from debiasbench.testing import check_dataset
from tests.datasets.folders import (
    bffhq,
)


def test_bffhq_is_measured_on_its_conflicting_half(tmp_path: Path) -> None:
    task = check_dataset(BFFHQ(size=16), bffhq(tmp_path))
    assert task.shape.input == (3, 16, 16)
    assert (task.metric, task.select) == ("conflict", "val_conflict")
    assert task.mean == (0.4914, 0.4822, 0.4465)
    assert [len(s) for s in task.splits().values()] == [5, 2, 3]


def test_bffhq_takes_any_existing_ratio(tmp_path: Path) -> None:
    (bffhq(tmp_path) / "bffhq/0.5pct").rename(tmp_path / "bffhq/20pct")
    assert len(BFFHQ(ratio=0.2).load(tmp_path).train) == 5
    with pytest.raises(
        DataError, match=r"Existing ratios: 20pct\. To use 20pct, add --set dataset\.ratio=0\.2"
    ):
        BFFHQ().load(tmp_path)

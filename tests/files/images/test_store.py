"""Decoded images in memory or on the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from debiasbench.common.errors import DataError
from debiasbench.files.images import (
    decode,
    store,
)
from tests.files.images.pictures import folder_of, noise


def test_a_large_result_is_stored_on_the_disk_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = folder_of(tmp_path, 70)
    expected = decode(files)
    monkeypatch.setattr(store, "IN_MEMORY", 70 * 3 * 12 * 10 - 1)
    devices: list[int] = []
    put = store.Store.put

    def watch(self: store.Store, at: int, planes: np.ndarray) -> None:
        assert self._file is not None
        devices.append(os.fstat(self._file.fileno()).st_dev)
        put(self, at, planes)

    monkeypatch.setattr(store.Store, "put", watch)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    mapped = decode(files, workspace=workspace)
    assert devices == [workspace.stat().st_dev] * 70
    assert torch.equal(mapped, expected)
    assert list(workspace.iterdir()) == []
    mapped[0] = 7  # the caller may change it
    assert mapped[0].unique().tolist() == [7]


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_a_full_disk_is_one_error_with_size_and_folder(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    files = folder_of(tmp_path, 70)
    monkeypatch.setattr(store, "IN_MEMORY", 0)
    monkeypatch.setattr(os, call, full)
    with pytest.raises(DataError, match=r"need 0\.0 GB.*No space left.*another folder") as error:
        decode(files, workspace=tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_result_that_would_fill_the_memory_is_stored_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = folder_of(tmp_path, 3)
    expected = decode(files)
    monkeypatch.setattr(store, "_free_memory", lambda: 4 * 3 * 3 * 12 * 10 - 1)
    with pytest.raises(DataError, match="nowhere"):
        decode(files, workspace=tmp_path / "nowhere")
    assert torch.equal(decode(files, workspace=tmp_path), expected)


def test_a_missing_workspace_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "IN_MEMORY", 0)
    with pytest.raises(DataError, match="nowhere"):
        decode(folder_of(tmp_path, 1), workspace=tmp_path / "nowhere")


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = folder_of(tmp_path, 70)
    expected = decode(files)
    write = os.pwrite
    monkeypatch.setattr(store, "IN_MEMORY", 0)
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: write(file, data[:1000], at))
    assert torch.equal(decode(files), expected)


@pytest.mark.parametrize("missing", [True, False])
def test_a_file_system_without_allocation_works(
    missing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    files = folder_of(tmp_path, 3)
    monkeypatch.setattr(store, "IN_MEMORY", 0)
    if missing:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    assert np.array_equal(decode(files)[2].permute(1, 2, 0).numpy(), noise(2))

"""Many files become one tensor, with any number of workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from debiasbench.common.errors import DataError, Interrupted
from debiasbench.common.signals import stopped_by_signals
from debiasbench.files.images import (
    BadImage,
    decode,
    decoding,
    store,
    stretched,
)
from tests.files.images.pictures import COLOURS, folder_of, noise, saved, text


def test_many_files_become_one_tensor_in_order(tmp_path: Path) -> None:
    files = folder_of(tmp_path, 150)  # more than two blocks
    x = decode(files[::-1])
    assert (x.shape, x.dtype) == ((150, 3, 12, 10), torch.uint8)
    assert x.is_contiguous()
    for i, image in enumerate(x):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), noise(149 - i))


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [True, False])
def test_the_result_does_not_depend_on_the_number_of_workers(
    tmp_path: Path, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "IN_MEMORY", 1 << 30 if in_memory else 0)
    files = folder_of(tmp_path, 150)
    one = decode(files, workers=1)
    assert all(torch.equal(decode(files, workers=n), one) for n in (2, 7, None))


@pytest.mark.parametrize("workers", [1, 4])
def test_the_first_bad_file_in_order_is_the_error(tmp_path: Path, workers: int) -> None:
    files = folder_of(tmp_path, 300)
    for i in (290, 131, 77, 200):
        text(files[i])
    with pytest.raises(BadImage) as error:
        decode(files, workers=workers)
    assert str(error.value).startswith(f"{files[77]} is not an image")


def test_images_of_different_sizes_are_an_error_that_names_both(tmp_path: Path) -> None:
    files = folder_of(tmp_path, 4)
    saved(files[2], noise(0, 5, 6))
    with pytest.raises(DataError, match=r"2\.png is 6x5, .*0\.png is 10x12.*scale or crop"):
        decode(files)
    assert decode(files, stretched(8, 9)).shape == (4, 3, 8, 9)


def test_an_empty_list_is_an_error() -> None:
    with pytest.raises(DataError, match="no image"):
        decode([])


def test_decoding_converts_only_if_allowed(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", COLOURS, "RGBA")
    with pytest.raises(BadImage, match="transparency"):
        decode([tmp_path / "a.png"])
    assert np.array_equal(
        decode([tmp_path / "a.png"], convert=True)[0].permute(1, 2, 0).numpy(), COLOURS
    )


@pytest.mark.slow
def test_a_killed_process_is_an_error_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{i}.png" for i in range(6)]
    for file in files:
        Image.new("RGB", (4, 4)).save(file)
    monkeypatch.setattr(decoding, "MANY", 2)
    monkeypatch.setattr(decoding, "BLOCK", 1)
    assert decode(files, workers=2).shape == (6, 3, 4, 4)

    def die(self: object, start: int, rows: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(store.Store, "put", die)
    with pytest.raises(DataError, match="was killed, probably because the memory was full"):
        decode(files, workers=2)


@pytest.mark.slow
def test_the_first_bad_file_is_the_error_with_any_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{i}.png" for i in range(12)]
    for i, file in enumerate(files):
        Image.new("RGB", (4, 4)).save(file)
        if i in {5, 6, 8}:
            file.write_bytes(b"not an image")
    monkeypatch.setattr(decoding, "MANY", 2)
    monkeypatch.setattr(decoding, "BLOCK", 1)
    for workers in (1, 2, 3, 5):
        with pytest.raises(BadImage, match=r"5\.png is not an image"):
            decode(files, workers=workers)


def test_a_signal_ends_the_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MANY", 1)
    files = folder_of(tmp_path, 20)
    parent = os.getpid()

    def endless(image: Image.Image) -> Image.Image:
        if os.getpid() != parent:
            signal.pause()
        return image

    with stopped_by_signals() as stop:
        stop.request()
        with pytest.raises(Interrupted):
            decode(files, endless, workers=2)

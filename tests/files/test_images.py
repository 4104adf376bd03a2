"""Image files: what is taken, what is refused and how, and many files as one tensor."""

from __future__ import annotations

import errno
import io
import os
import random
import re
import signal
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Resize

from debiasbench.common.errors import DataError
from debiasbench.files import images
from debiasbench.files.images import BadImage, chained, cropped, decode, read, stretched

COLOURS = np.array([[[255, 0, 0], [0, 200, 0], [0, 0, 99]]], np.uint8).repeat(2, 0)  # (2, 3, 3)


def noise(seed: int, height: int = 12, width: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(path: Path, pixels: np.ndarray, mode: str | None = None, **how: object) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **how)
    return path


def folder_of(tmp_path: Path, count: int) -> list[Path]:
    return [saved(tmp_path / f"{i}.png", noise(i)) for i in range(count)]


def png16(path: Path, channels: int) -> Path:
    """A PNG of 1x1 with 16 bits a channel, whose values are 0x0102, 0x0304, ..."""
    values = bytes(range(1, 2 * channels + 1))
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", 1, 1, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + values))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))
    return path


def test_a_colour_image_is_read_as_it_is(tmp_path: Path) -> None:
    image = read(saved(tmp_path / "a.png", noise(0)))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), noise(0))


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = noise(0)[:, :, 0]
    image = read(saved(tmp_path / "a.png", grey))
    assert np.array_equal(np.asarray(image), np.stack([grey] * 3, axis=2))


def animation(path: Path) -> Path:
    frames = [Image.fromarray(noise(i)) for i in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def see_through(path: Path) -> Path:
    """An RGB image of which one colour is declared transparent."""
    return saved(path, COLOURS, transparency=(255, 0, 0))


CONVERTIBLE: dict[str, Callable[[Path], Path]] = {
    "16 bits a channel": lambda p: png16(p / "a.png", 1),
    "16 bits a channel of colour": lambda p: png16(p / "a.png", 3),
    "16 bits a channel and transparency": lambda p: png16(p / "a.png", 4),
    "a palette": lambda p: saved(p / "a.png", COLOURS, "P"),
    "CMYK": lambda p: saved(p / "a.jpg", COLOURS, "CMYK"),
    "transparency": lambda p: saved(p / "a.png", COLOURS, "RGBA"),
    "transparency of grey": lambda p: saved(p / "a.png", COLOURS, "LA"),
    "transparency of one colour": lambda p: see_through(p / "a.png"),
    "1 bit a pixel": lambda p: saved(p / "a.png", COLOURS, "1"),
    "an animation": lambda p: animation(p / "a.webp"),
}


@pytest.mark.parametrize("kind", CONVERTIBLE)
def test_what_could_be_meant_otherwise_is_refused_until_conversion_is_asked_for(
    kind: str, tmp_path: Path
) -> None:
    path = CONVERTIBLE[kind](tmp_path)
    what = re.split(" of | and ", kind)[0]
    with pytest.raises(BadImage, match=rf"{what}.*Save it as one of them, or ask") as error:
        read(path)
    assert str(error.value).startswith(str(path))
    with Image.open(path) as opened:
        size = opened.size
    image = read(path, convert=True)
    assert (image.mode, image.size) == ("RGB", size)


def pixel(path: Path) -> tuple[int, ...]:
    return tuple(np.asarray(read(path, convert=True))[0, 0].tolist())


def test_of_16_bits_conversion_keeps_the_higher_8(tmp_path: Path) -> None:
    assert pixel(png16(tmp_path / "grey.png", 1)) == (1, 1, 1)
    assert pixel(png16(tmp_path / "colour.png", 3)) == (1, 3, 5)


def test_conversion_takes_the_colours_of_a_palette(tmp_path: Path) -> None:
    image = Image.new("P", (1, 1), 3)
    image.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2, 10, 20, 30])
    image.save(tmp_path / "a.png")
    assert pixel(tmp_path / "a.png") == (10, 20, 30)


def test_conversion_puts_transparency_over_black(tmp_path: Path) -> None:
    pixels = np.array([[[200, 100, 50, 128]]], np.uint8)
    assert pixel(saved(tmp_path / "half.png", pixels)) == (100, 50, 25)
    hidden = np.array([[[200, 0]]], np.uint8)
    Image.fromarray(hidden, "LA").save(tmp_path / "hidden.png")
    assert pixel(tmp_path / "hidden.png") == (0, 0, 0)
    assert pixel(see_through(tmp_path / "one.png")) == (0, 0, 0)


def test_conversion_takes_the_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((9, 9, 9), (200, 0, 0))]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert pixel(tmp_path / "a.png") == (9, 9, 9)


@pytest.mark.parametrize("convert", [False, True])
def test_numbers_without_a_range_are_refused_even_with_conversion(
    tmp_path: Path, convert: bool
) -> None:
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(BadImage, match="numbers without a range"):
        read(tmp_path / "a.tiff", convert=convert)


def cut(path: Path, keep: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    return path


def text(path: Path, content: str = "Not Found") -> Path:
    path.write_text(content)
    return path


@pytest.mark.parametrize("convert", [False, True])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: cut(saved(p / "a.png", noise(0)), 0.5), "truncated or damaged"),
        (lambda p: cut(saved(p / "a.jpg", noise(0, 64, 64)), 0.6), "truncated or damaged"),
        (lambda p: text(p / "a.png"), "is no image"),
        (lambda p: text(p / "a.png", ""), "is no image"),
        (lambda p: text(p / "a.eps", "%!PS-Adobe-3.0 EPSF-3.0\n"), "is no image"),
        (lambda p: p / "a.png", "cannot be read"),
        (lambda p: p, "cannot be read"),
    ],
)
def test_what_is_no_whole_image_is_refused_with_its_path(
    tmp_path: Path, make: Callable[[Path], Path], says: str, convert: bool
) -> None:
    path = make(tmp_path)
    with pytest.raises(BadImage, match=says) as error:
        read(path, convert=convert)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("most", [100, 20])  # of 12x10 pixels: Pillow warns, Pillow refuses
def test_an_image_of_too_many_pixels_is_refused(
    tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    with pytest.raises(BadImage, match=f"more than {most} pixels"):
        read(saved(tmp_path / "a.png", noise(0)))


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "tiff", "webp", "bmp", "ppm"])
def test_damaged_bytes_give_an_image_or_a_clear_error_and_no_warning(
    kind: str, tmp_path: Path
) -> None:
    whole, rng, path = io.BytesIO(), random.Random(0), tmp_path / f"a.{kind}"
    exif = Image.Exif()
    exif[0x0112] = 6
    more = {"exif": exif} if kind in {"png", "jpeg", "tiff", "webp"} else {}
    Image.fromarray(noise(0)).save(whole, kind, **more)
    refused = 0
    for _ in range(80):
        data = bytearray(whole.getvalue())
        for _ in range(rng.choice([1, 3, 10])):
            data[rng.randrange(min(len(data), 300))] = rng.randrange(256)
        path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        try:
            assert read(path, convert=True).mode == "RGB"
        except BadImage:
            refused += 1
    assert refused > 0


# the pixel that is at the top left once the picture stands upright, of [[red, green, blue], ...]
@pytest.mark.parametrize(
    ("orientation", "size", "corner"),
    [(1, (3, 2), 0), (2, (3, 2), 2), (3, (3, 2), 2), (6, (2, 3), 0), (8, (2, 3), 2)],
)
def test_images_are_turned_as_their_exif_orientation_says(
    tmp_path: Path, orientation: int, size: tuple[int, int], corner: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read(saved(tmp_path / "a.png", COLOURS, exif=exif))
    assert image.size == size
    assert np.array_equal(np.asarray(image)[0, 0], COLOURS[0, corner])


def test_damaged_exif_is_not_the_pixels_fault(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", COLOURS, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert np.array_equal(np.asarray(read(path)), COLOURS)


def test_pillows_warnings_are_kept_back_and_do_not_make_an_image_bad(tmp_path: Path) -> None:
    entries = struct.pack("<HHIHHHHII", 0x0112, 3, 1, 6, 0, 0x010E, 2, 99, 1 << 20)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries + bytes(4)  # a text that is not there
    path = saved(tmp_path / "a.png", COLOURS, exif=exif)
    with Image.open(path) as opened, pytest.warns(UserWarning, match=r"Tag data|EXIF|Truncated"):
        opened.getexif()
    assert read(path).size == (2, 3)
    assert decode([path]).shape == (1, 3, 3, 2)


def test_many_files_come_in_their_order_as_channels_rows_columns(tmp_path: Path) -> None:
    files = folder_of(tmp_path, 150)  # more than two blocks
    x = decode(files[::-1])
    assert (x.shape, x.dtype) == ((150, 3, 12, 10), torch.uint8)
    assert x.is_contiguous()
    for i, image in enumerate(x):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), noise(149 - i))


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_bytes_do_not_depend_on_the_number_of_threads(
    tmp_path: Path, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "IN_MEMORY", 1 << 30 if in_memory else 0)
    files = folder_of(tmp_path, 150)
    one = decode(files, workers=1)
    assert all(torch.equal(decode(files, workers=n), one) for n in (2, 7, None))


def test_a_large_result_lies_on_the_disk_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = folder_of(tmp_path, 70)
    expected = decode(files)
    monkeypatch.setattr(images, "IN_MEMORY", 70 * 3 * 12 * 10 - 1)
    there: list[int] = []
    put = images._Store.put

    def watch(store: images._Store, at: int, planes: np.ndarray) -> None:
        assert store._file is not None
        there.append(os.fstat(store._file.fileno()).st_dev)
        put(store, at, planes)

    monkeypatch.setattr(images._Store, "put", watch)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    mapped = decode(files, workspace=workspace)
    assert there == [workspace.stat().st_dev] * 70
    assert torch.equal(mapped, expected)
    assert list(workspace.iterdir()) == []
    mapped[0] = 7  # it is the caller's own
    assert mapped[0].unique().tolist() == [7]


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_a_full_disk_is_one_error_that_says_how_much_and_where(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    files = folder_of(tmp_path, 70)
    monkeypatch.setattr(images, "IN_MEMORY", 0)
    monkeypatch.setattr(os, call, full)
    with pytest.raises(DataError, match=r"take 0\.0 GB.*No space left.*another folder") as error:
        decode(files, workspace=tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_result_that_would_fill_the_memory_lies_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = folder_of(tmp_path, 3)
    expected = decode(files)
    monkeypatch.setattr(images, "_free_memory", lambda: 4 * 3 * 3 * 12 * 10 - 1)
    with pytest.raises(DataError, match="nowhere"):
        decode(files, workspace=tmp_path / "nowhere")
    assert torch.equal(decode(files, workspace=tmp_path), expected)


def test_a_workspace_that_is_missing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "IN_MEMORY", 0)
    with pytest.raises(DataError, match="nowhere"):
        decode(folder_of(tmp_path, 1), workspace=tmp_path / "nowhere")


def test_a_disk_that_takes_a_little_at_a_time_gets_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = folder_of(tmp_path, 70)
    expected = decode(files)
    write = os.pwrite
    monkeypatch.setattr(images, "IN_MEMORY", 0)
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: write(file, data[:1000], at))
    assert torch.equal(decode(files), expected)


@pytest.mark.parametrize("missing", [True, False])
def test_a_file_system_without_allocation_is_no_obstacle(
    missing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    files = folder_of(tmp_path, 3)
    monkeypatch.setattr(images, "IN_MEMORY", 0)
    if missing:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    assert np.array_equal(decode(files)[2].permute(1, 2, 0).numpy(), noise(2))


@pytest.mark.parametrize("workers", [1, 4])
def test_the_first_bad_file_in_order_is_the_error(tmp_path: Path, workers: int) -> None:
    files = folder_of(tmp_path, 300)
    for i in (290, 131, 77, 200):
        text(files[i])
    with pytest.raises(BadImage) as error:
        decode(files, workers=workers)
    assert str(error.value).startswith(f"{files[77]} is no image")


def test_images_of_different_size_are_an_error_that_names_the_first(tmp_path: Path) -> None:
    files = folder_of(tmp_path, 4)
    saved(files[2], noise(0, 5, 6))
    with pytest.raises(DataError, match=r"2\.png is 6x5, .*0\.png is 10x12.*scale or crop"):
        decode(files)
    assert decode(files, stretched(8, 9)).shape == (4, 3, 8, 9)


def test_no_file_is_an_error() -> None:
    with pytest.raises(DataError, match="no image"):
        decode([])


def test_decoding_converts_where_it_is_asked_to(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", COLOURS, "RGBA")
    with pytest.raises(BadImage, match="transparency"):
        decode([tmp_path / "a.png"])
    assert np.array_equal(
        decode([tmp_path / "a.png"], convert=True)[0].permute(1, 2, 0).numpy(), COLOURS
    )


@pytest.mark.parametrize(("height", "width"), [(20, 31), (7, 5), (12, 10), (24, 3)])
def test_stretching_is_torchvisions_resize(tmp_path: Path, height: int, width: int) -> None:
    image = Image.fromarray(noise(1))
    ours, theirs = stretched(height, width)(image), Resize((height, width))(image)
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize(("height", "width"), [(12, 10), (11, 7), (4, 9), (1, 1)])
def test_cropping_is_torchvisions_centre_crop(height: int, width: int) -> None:
    image = Image.fromarray(noise(1))
    ours, theirs = cropped(height, width)(image), CenterCrop((height, width))(image)
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_an_image_too_small_to_crop_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match=r"0\.png is 10x12 .*smaller than the 11x3"):
        decode(folder_of(tmp_path, 1), cropped(3, 11))


def test_shapes_are_chained_in_order() -> None:
    image = Image.fromarray(noise(1))
    assert chained(stretched(20, 20), cropped(4, 6))(image).size == (6, 4)
    with pytest.raises(ValueError, match="smaller"):
        chained(cropped(4, 6), cropped(5, 5))(image)


def test_a_killed_process_of_several_is_an_error_and_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{i}.png" for i in range(6)]
    for file in files:
        Image.new("RGB", (4, 4)).save(file)
    monkeypatch.setattr(images, "MANY", 2)
    monkeypatch.setattr(images, "BLOCK", 1)
    assert images.decode(files, workers=2).shape == (6, 3, 4, 4)

    def die(self: object, start: int, rows: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(images._Store, "put", die)
    with pytest.raises(DataError, match="was killed: was memory short"):
        images.decode(files, workers=2)


def test_the_first_bad_file_is_the_error_whichever_process_meets_one_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{i}.png" for i in range(12)]
    for i, file in enumerate(files):
        Image.new("RGB", (4, 4)).save(file)
        if i in {5, 6, 8}:
            file.write_bytes(b"no image")
    monkeypatch.setattr(images, "MANY", 2)
    monkeypatch.setattr(images, "BLOCK", 1)
    for workers in (1, 2, 3, 5):
        with pytest.raises(images.BadImage, match=r"5\.png is no image"):
            images.decode(files, workers=workers)

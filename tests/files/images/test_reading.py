"""One image file: what is accepted, what is refused and why."""

from __future__ import annotations

import io
import random
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from debiasbench.files.images import (
    BadImage,
    decode,
    read,
)
from tests.files.images.pictures import COLOURS, noise, saved, text


def png16(path: Path, channels: int) -> Path:
    """Write a PNG of 1x1 with 16 bits per channel and the values 0x0102, 0x0304, ..."""
    values = bytes(range(1, 2 * channels + 1))
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", 1, 1, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + values))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))
    return path


def test_a_colour_image_is_read_unchanged(tmp_path: Path) -> None:
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


def transparent(path: Path) -> Path:
    """Write an RGB image in which one colour is declared transparent."""
    return saved(path, COLOURS, transparency=(255, 0, 0))


CONVERTIBLE: dict[str, Callable[[Path], Path]] = {
    "16 bits per channel": lambda p: png16(p / "a.png", 1),
    "16 bits per channel of colour": lambda p: png16(p / "a.png", 3),
    "16 bits per channel and transparency": lambda p: png16(p / "a.png", 4),
    "a palette": lambda p: saved(p / "a.png", COLOURS, "P"),
    "CMYK": lambda p: saved(p / "a.jpg", COLOURS, "CMYK"),
    "transparency": lambda p: saved(p / "a.png", COLOURS, "RGBA"),
    "transparency of grey": lambda p: saved(p / "a.png", COLOURS, "LA"),
    "transparency of one colour": lambda p: transparent(p / "a.png"),
    "1 bit per pixel": lambda p: saved(p / "a.png", COLOURS, "1"),
    "an animation": lambda p: animation(p / "a.webp"),
}


@pytest.mark.parametrize("kind", CONVERTIBLE)
def test_an_ambiguous_image_is_refused_unless_conversion_is_allowed(
    kind: str, tmp_path: Path
) -> None:
    path = CONVERTIBLE[kind](tmp_path)
    problem = re.split(" of | and ", kind)[0]
    with pytest.raises(BadImage, match=rf"{problem}.*Save it as one of them, or allow") as error:
        read(path)
    assert str(error.value).startswith(str(path))
    with Image.open(path) as opened:
        size = opened.size
    image = read(path, convert=True)
    assert (image.mode, image.size) == ("RGB", size)


def pixel(path: Path) -> tuple[int, ...]:
    return tuple(np.asarray(read(path, convert=True))[0, 0].tolist())


def test_conversion_keeps_the_higher_8_of_16_bits(tmp_path: Path) -> None:
    assert pixel(png16(tmp_path / "grey.png", 1)) == (1, 1, 1)
    assert pixel(png16(tmp_path / "colour.png", 3)) == (1, 3, 5)


@pytest.mark.parametrize(("kind", "values"), [(b"P6", b"\x01\x00" * 12), (b"P3", b"256 " * 12)])
def test_colours_of_16_bits_in_a_portable_pixmap_are_refused_too(
    kind: bytes, values: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "a.ppm"
    path.write_bytes(kind + b" 2 2 65535\n" + values)
    with pytest.raises(BadImage, match="has 16 bits per channel"):
        read(path, convert=False)
    path.write_bytes(b"P6 2 2 255\n" + b"\x01" * 12)
    assert pixel(path) == (1, 1, 1)


def test_conversion_uses_the_colours_of_a_palette(tmp_path: Path) -> None:
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
    assert pixel(transparent(tmp_path / "one.png")) == (0, 0, 0)


def test_conversion_takes_the_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((9, 9, 9), (200, 0, 0))]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert pixel(tmp_path / "a.png") == (9, 9, 9)


@pytest.mark.parametrize("convert", [False, True])
def test_values_without_a_range_are_refused_even_with_conversion(
    tmp_path: Path, convert: bool
) -> None:
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(BadImage, match="pixel values without a fixed range"):
        read(tmp_path / "a.tiff", convert=convert)


def cut(path: Path, keep: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    return path


@pytest.mark.parametrize("convert", [False, True])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: cut(saved(p / "a.png", noise(0)), 0.5), "truncated or damaged"),
        (lambda p: cut(saved(p / "a.jpg", noise(0, 64, 64)), 0.6), "truncated or damaged"),
        (lambda p: text(p / "a.png"), "is not an image"),
        (lambda p: text(p / "a.png", ""), "is not an image"),
        (lambda p: text(p / "a.eps", "%!PS-Adobe-3.0 EPSF-3.0\n"), "is not an image"),
        (lambda p: p / "a.png", "cannot be read"),
        (lambda p: p, "cannot be read"),
    ],
)
def test_a_file_that_is_not_a_complete_image_is_refused_with_its_path(
    tmp_path: Path, make: Callable[[Path], Path], message: str, convert: bool
) -> None:
    path = make(tmp_path)
    with pytest.raises(BadImage, match=message) as error:
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


# `corner`: the column of COLOURS that is at the top left after the rotation
@pytest.mark.parametrize(
    ("orientation", "size", "corner"),
    [(1, (3, 2), 0), (2, (3, 2), 2), (3, (3, 2), 2), (6, (2, 3), 0), (8, (2, 3), 2)],
)
def test_images_are_rotated_by_their_exif_orientation(
    tmp_path: Path, orientation: int, size: tuple[int, int], corner: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read(saved(tmp_path / "a.png", COLOURS, exif=exif))
    assert image.size == size
    assert np.array_equal(np.asarray(image)[0, 0], COLOURS[0, corner])


def test_damaged_exif_is_ignored(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", COLOURS, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert np.array_equal(np.asarray(read(path)), COLOURS)


def test_warnings_of_pillow_are_hidden_and_do_not_refuse_an_image(tmp_path: Path) -> None:
    entries = struct.pack("<HHIHHHHII", 0x0112, 3, 1, 6, 0, 0x010E, 2, 99, 1 << 20)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries + bytes(4)  # names a text that is missing
    path = saved(tmp_path / "a.png", COLOURS, exif=exif)
    with Image.open(path) as opened, pytest.warns(UserWarning, match=r"Tag data|EXIF|Truncated"):
        opened.getexif()
    assert read(path).size == (2, 3)
    assert decode([path]).shape == (1, 3, 3, 2)

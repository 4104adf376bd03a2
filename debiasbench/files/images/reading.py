"""Read one image file as 8-bit RGB, or raise a clear error."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from debiasbench.common.errors import DataError
from debiasbench.common.regular import check_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from PIL.ImageFile import ImageFile

# Pillow would start other programs for some of its other formats
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
TURNING = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # may hold an orientation

_PLAIN = {"RGB", "L"}
_ALPHA = {"RGBA", "LA", "PA", "RGBa", "La"}
_CONVERTIBLE = _PLAIN | _ALPHA | {"1", "P", "CMYK", "YCbCr", "LAB", "HSV"}


class BadImage(DataError):  # noqa: N818 - the name is the problem
    """A file cannot be used as an image; the message starts with its path."""


def read(path: Path, *, convert: bool = False) -> Image.Image:
    """Read a file as an 8-bit RGB image, fully decoded and rotated by its EXIF orientation.

    Accepts RGB and grey images of at most 8 bits in PNG, JPEG, BMP, GIF, PPM, TIFF and WebP; grey
    becomes three equal channels. Colour profiles are not applied. With `convert`, also: the higher
    8 of 16 bits; the colours of a palette; 1 bit as black and white; CMYK, YCbCr, Lab and HSV by
    Pillow's formulas; transparency over black; the first frame of an animation.

    Raises `BadImage` for anything else: a file that is missing, empty, truncated or not an image,
    or that has more pixels than Pillow allows (`PIL.Image.MAX_IMAGE_PIXELS`). For many files use
    `decode`: this function changes the warning filters of the process while it runs.
    """
    with quiet():
        return read_quietly(path, convert)


def read_quietly(path: Path, convert: bool) -> Image.Image:
    """Read a file as `read` does; the caller is inside `quiet`."""
    Image.preinit()  # otherwise Pillow loads all its formats, again in each process
    try:
        check_regular(path)
        with Image.open(path, formats=FORMATS) as image:
            if problem := _problem(image, convert):
                raise BadImage(f"{path} {problem}")
            image.load()
            return _rgb(_upright(image))
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, the limit of Pillow. "
            "Scale it down or remove it"
        ) from error
    except UnidentifiedImageError as error:
        known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise BadImage(f"{path} is not an image ({known}). Replace or remove it") from error
    except Exception as error:  # Pillow raises many exception types for damaged bytes
        if isinstance(error, OSError) and error.errno:
            raise BadImage(
                f"{path} cannot be read ({error.strerror}). Check that it exists and is a readable "
                "file"
            ) from error
        raise BadImage(
            f"{path} is truncated or damaged ({error or type(error).__name__}). "
            "Download or copy it again"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Hide Pillow's warnings; entered once for all threads, because filters are global."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        # about forking beside threads: our processes use nothing that a thread could lock
        warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _is_deep(tile: Any) -> bool:
    """Return whether the part of a file that Pillow describes has more than 8 bits a channel."""
    decoder, *_, arguments = tile
    if decoder in {"ppm", "ppm_plain"}:  # the last argument is the largest value
        return isinstance(arguments, tuple) and arguments[-1] > 255
    return ";16" in str(arguments)


def _problem(image: ImageFile, convert: bool) -> str | None:
    """Return why an opened image is refused; None if it is accepted."""
    # Pillow silently drops the lower 8 bits of RGB with 16 bits per channel
    deep = image.mode.startswith("I;16") or any(map(_is_deep, image.tile))
    if 0 in image.size:
        return "has no pixels. Replace or remove it"
    if image.mode not in _CONVERTIBLE and not deep:
        return f"has pixel values without a fixed range (mode {image.mode}). Save it as 8-bit RGB"
    if convert:
        return None
    several = getattr(image, "is_animated", False) and image.format != "MPO"
    for problem, applies in (
        ("has 16 bits per channel", deep),
        ("is an animation or has several pages", several),
        ("has transparency", image.mode in _ALPHA or "transparency" in image.info),
        ("has a palette", image.mode == "P"),
        ("has 1 bit per pixel", image.mode == "1"),
        (f"has {image.mode} colours", image.mode not in _PLAIN),
    ):
        if applies:
            return (
                f"{problem}. Only 8-bit RGB and 8-bit grey are unambiguous. "
                "Save it as one of them, or allow conversion (convert)"
            )
    return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in _ALPHA or "transparency" in image.info:
        over = image.convert("RGBA")
        black = Image.new("RGBA", over.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, over).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    if image.format != "TIFF" and not TURNING & image.info.keys():
        return image  # looking for an orientation in vain takes half as long as decoding
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # damaged EXIF has no orientation, but the pixels are intact
        return image
    return image

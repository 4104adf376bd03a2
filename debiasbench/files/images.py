"""Reading image files: 8-bit RGB or a clear error, many at once on all cores."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import signal
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from debiasbench.common.errors import DataError
from debiasbench.common.processes import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile
    from torch import Tensor

    Shape = Callable[[Image.Image], Image.Image]

# Pillow would start other programs for some of the rest
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
IN_MEMORY = 1 << 30  # bytes; a larger result lies on the disk
TURNING = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # may hold an orientation
MANY = 256  # files that are worth processes
BLOCK = 8  # what a process decodes at a time

_PLAIN = {"RGB", "L"}
_ALPHA = {"RGBA", "LA", "PA", "RGBa", "La"}
_CONVERTIBLE = _PLAIN | _ALPHA | {"1", "P", "CMYK", "YCbCr", "LAB", "HSV"}


class BadImage(DataError):  # noqa: N818 - it says what is wrong
    """A file that is no usable image; the message starts with its path."""


def read(path: Path, *, convert: bool = False) -> Image.Image:
    """Read a file as an 8-bit RGB image, fully decoded, turned as its EXIF orientation says.

    Takes RGB and grey images of 8 bits and less of PNG, JPEG, BMP, GIF, PPM, TIFF and WebP; grey
    becomes three equal channels. Colour profiles are not applied. With `convert`, also: of 16 bits
    the higher 8; a palette by its colours; 1 bit as black and white; CMYK, YCbCr, Lab and HSV by
    Pillow's formulae; transparency over black; of an animation the first frame.

    Raises `BadImage` for anything else: a file that is missing, truncated, no image or empty, or
    has more pixels than Pillow deems safe (`PIL.Image.MAX_IMAGE_PIXELS`). For many files use
    `decode`: this function changes the process's warning filters while it runs.
    """
    with _quiet():
        return _read(path, convert)


def decode(
    files: Sequence[Path],
    shape: Shape | None = None,
    *,
    convert: bool = False,
    workers: int | None = None,
    workspace: Path | None = None,
) -> Tensor:
    """Read files as one (N, 3, H, W) uint8 tensor, in their order, each by the rules of `read`.

    `shape`: changes each image first; a `ValueError` of it is taken for the image's fault.
    `workers`: processes, or threads for few files; one per core unless given. The bytes do not
    depend on it.
    `workspace`: folder for results above 1 GiB or a quarter of the free memory, which lie
    memory-mapped in a file without a name that goes when the tensor does; the system's temporary
    folder unless given.

    Raises `BadImage` for the first bad file in order, and `DataError` if images differ in size,
    none is given, or the disk is full.
    """
    if not files:
        raise DataError("There is no image to decode: give at least one file")
    with _quiet():
        first = _shaped(files[0], shape, convert)

        def fill(start: int) -> None:
            for at, path in enumerate(files[start : start + BLOCK], start):
                image = _shaped(path, shape, convert)
                if image.size != first.size:
                    raise DataError(
                        f"{path} is {image.width}x{image.height}, {files[0]} is "
                        f"{first.width}x{first.height} (width x height): all images must have "
                        "one size, so scale or crop them to it"
                    )
                store.put(at, _planes(image))

        starts, workers = range(0, len(files), BLOCK), workers or cores()
        forking = workers > 1 and len(files) >= MANY and sys.platform == "linux"
        size = (len(files), 3, first.height, first.width)
        with _Store(size, workspace, shared=forking) as store:
            if forking:
                _by_processes(fill, starts, workers)
            else:
                with ThreadPoolExecutor(workers) as pool:
                    # results come in order, so the first error in order is the one raised
                    for _ in pool.map(fill, starts):
                        pass
            return store.tensor()


def stretched(height: int, width: int) -> Shape:
    """Scale to a size whatever the proportions, bilinear with antialiasing."""
    return lambda image: image.resize((width, height), Image.Resampling.BILINEAR)


def cropped(height: int, width: int) -> Shape:
    """Cut out the centre; an image that is smaller raises `ValueError`."""

    def crop(image: Image.Image) -> Image.Image:
        if image.height < height or image.width < width:
            raise ValueError(
                f"is {image.width}x{image.height} (width x height), smaller than the "
                f"{width}x{height} to cut out of it. Put the original images there"
            )
        # rounded as torchvision's CenterCrop does
        top, left = round((image.height - height) / 2), round((image.width - width) / 2)
        return image.crop((left, top, left + width, top + height))

    return crop


def chained(*shapes: Shape) -> Shape:
    """Apply shapes one after the other."""

    def apply(image: Image.Image) -> Image.Image:
        for shape in shapes:
            image = shape(image)
        return image

    return apply


def _by_processes(fill: Callable[[int], None], starts: Sequence[int], workers: int) -> None:
    """Call `fill` for all starts in forked processes, which share the store's file.

    Threads would wait for each other half of the time: Pillow holds the interpreter's lock.
    """
    context, parent = get_context("fork"), os.getpid()

    def work(mine: Sequence[int], tell: Connection) -> None:
        gc.disable()  # it would copy every page of the parent's objects, to find nothing
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
        for start in mine:
            if os.getppid() != parent:  # it was killed, so nobody wants the rest
                return
            try:
                fill(start)
            except DataError as error:
                tell.send((start, isinstance(error, BadImage), str(error)))
                return
        tell.send(None)

    jobs = []
    for first in range(min(workers, len(starts))):
        hear, tell = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(starts[first::workers], tell), daemon=True)
        process.start()
        tell.close()
        jobs.append((process, hear))
    errors: list[tuple[int, bool, str]] = []
    for process, hear in jobs:
        try:
            if (error := hear.recv()) is not None:
                errors.append(error)
        except EOFError:
            errors.append((-1, False, "A process that read images was killed: was memory short?"))
        hear.close()
        process.join()
    if errors:  # each process tells its first one
        _, bad, what = min(errors)
        raise BadImage(what) if bad else DataError(what)


class _Store:
    """Where the result comes to lie: an array, or a file without a name, in memory or on the disk.

    A file is written, not mapped, while images are decoded: a full disk is then an error instead
    of a killed process, processes share it, and each page is touched once.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], workspace: Path | None, *, shared: bool
    ) -> None:
        self._shape, self._row_bytes = shape, shape[1] * shape[2] * shape[3]
        self._size = shape[0] * self._row_bytes
        self._workspace, self._shared = workspace, shared  # with processes
        self._array: NDArray[np.uint8] | None = None
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self._size > min(IN_MEMORY, _free_memory() // 4):
            with self._disk_errors(), ExitStack() as undo:
                self._file = undo.enter_context(tempfile.TemporaryFile(dir=self._workspace))
                _allocate(self._file.fileno(), self._size)
                undo.pop_all()
        elif self._shared:
            self._file = os.fdopen(os.memfd_create("debiasbench images"), "r+b")
            self._file.truncate(self._size)
        else:
            self._array = np.empty(self._shape, np.uint8)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()  # a mapping outlives it

    def put(self, at: int, planes: NDArray[np.uint8]) -> None:
        """Take image number `at`, (3, H, W)."""
        if self._array is not None:
            self._array[at] = planes
            return
        assert self._file is not None
        left, at = planes.data.cast("B"), at * self._row_bytes
        with self._disk_errors():
            while left:
                written = os.pwrite(self._file.fileno(), left, at)
                left, at = left[written:], at + written

    def tensor(self) -> Tensor:
        """Return the whole; the file, if there is one, lives as long as this does."""
        if self._array is not None:
            return torch.from_numpy(self._array)
        assert self._file is not None
        with self._disk_errors():
            mapped = mmap.mmap(self._file.fileno(), self._size)
        return torch.frombuffer(mapped, dtype=torch.uint8).view(self._shape)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            folder = self._workspace or tempfile.gettempdir()
            elsewhere = "with TMPDIR" if self._workspace is None else "as workspace"
            raise DataError(
                f"The decoded images take {self._size / 1e9:.1f} GB and cannot be written to "
                f"{folder} ({error.strerror or error}). Free some space there, or choose another "
                f"folder {elsewhere}"
            ) from error


def _allocate(file: int, size: int) -> None:
    """Take up disk space at once, so that its lack shows before anything is decoded."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:  # file systems without it
                raise


def _shaped(path: Path, shape: Shape | None, convert: bool) -> Image.Image:
    image = _read(path, convert)
    if shape is None:
        return image
    try:
        return shape(image)
    except ValueError as error:
        raise BadImage(f"{path} {error}") from error


def _read(path: Path, convert: bool) -> Image.Image:
    Image.preinit()  # else Pillow loads all its formats, in each process anew
    try:
        with Image.open(path, formats=FORMATS) as image:
            if problem := _problem(image, convert):
                raise BadImage(f"{path} {problem}")
            image.load()
            return _rgb(_upright(image))
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels, which no data set has. "
            "Scale it down or remove it"
        ) from error
    except UnidentifiedImageError as error:
        known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise BadImage(f"{path} is no image ({known}). Remove it or put the image there") from error
    except Exception as error:  # Pillow raises a dozen kinds for damaged bytes
        if isinstance(error, OSError) and error.errno:
            raise BadImage(
                f"{path} cannot be read ({error.strerror}). Put the file there, readable"
            ) from error
        raise BadImage(
            f"{path} is truncated or damaged ({error or type(error).__name__}). "
            "Fetch or copy it again"
        ) from error


def _problem(image: ImageFile, convert: bool) -> str | None:
    """Say why an opened image cannot be taken; None if it can."""
    # of RGB with 16 bits a channel, Pillow drops the lower 8 silently
    deep = image.mode.startswith("I;16") or any(";16" in str(tile[3]) for tile in image.tile)
    if 0 in image.size:
        return "has no pixels. Remove it or fetch it again"
    if image.mode not in _CONVERTIBLE and not deep:
        return f"holds numbers without a range (mode {image.mode}). Save it as 8-bit RGB"
    if convert:
        return None
    several = getattr(image, "is_animated", False) and image.format != "MPO"
    for what, applies in (
        ("has 16 bits a channel", deep),
        ("is an animation or has several pages", several),
        ("has transparency", image.mode in _ALPHA or "transparency" in image.info),
        ("has a palette", image.mode == "P"),
        ("has 1 bit a pixel", image.mode == "1"),
        (f"is in {image.mode} colours", image.mode not in _PLAIN),
    ):
        if applies:
            return (
                f"{what}: only 8-bit RGB and 8-bit grey mean the same everywhere. "
                "Save it as one of them, or ask for conversion (convert)"
            )
    return None


def _planes(image: Image.Image) -> NDArray[np.uint8]:
    """(3, H, W) of an RGB image; of four bytes a pixel, as Pillow holds it and gives it fastest."""
    pixels = np.frombuffer(image.tobytes("raw", "RGBX"), np.uint8)
    pixels = pixels.reshape(image.height, image.width, 4)
    return np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1))


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
        return image  # asking for an orientation that is not there takes half as long as decoding
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # damaged EXIF says nothing, and the pixels are whole
        return image
    return image


def _free_memory() -> int:
    """Bytes that can be used without swapping, as Linux says; elsewhere assume 4 GiB."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return 1 << 32
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * sum(kilobytes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings to ourselves; entered once for all threads, as filters are global."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        # of forking beside threads: the processes touch nothing that threads could hold
        warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield

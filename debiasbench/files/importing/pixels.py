"""Decode rows into one array, each image once, and find the bad ones by bisection."""

from __future__ import annotations

import math
import mmap
import os
import shutil
from collections import Counter
from contextlib import suppress
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError
from debiasbench.files.importing.repeats import Repeats
from debiasbench.files.importing.source import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from PIL import Image
    from torch import Tensor

    from debiasbench.common.progress import Progress
    from debiasbench.files.images import Shape
    from debiasbench.files.importing.source import Row, Source

BLOCK_IMAGES, BLOCK_BYTES = 1024, 1 << 27  # limits of what is decoded at a time
SAMPLE = 25  # images that determine the usual size
MARGIN = 1 << 26  # bytes to leave free on the disk


class Reader:
    """Decodes rows and collects what it notices.

    `problems`: bad images; `leaks`: pairs of rows of different splits with the same pixels;
    `warnings`, `facts`: what readers of other samples have, here nothing.
    """

    def __init__(self, source: Source, rows: list[Row], progress: Progress | None = None) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.facts: dict[str, object] = {}
        self._source, self._rows, self._progress = source, rows, progress
        self._shape = (0, 3, 0, 0)
        self._repeats = Repeats()

    @property
    def leaks(self) -> list[tuple[Row, Row]]:
        """Pairs of rows of different splits with the same pixels."""
        return self._repeats.found

    def write(self, rows: list[Row], file: int, place: Path) -> list[Row]:
        """Decode rows into an open file, one after the other, and return the good ones.

        Raises `DataError` if the free space of `place` is too small, `OSError` if the disk becomes
        full later.
        """
        if self._size is None:  # every image is bad
            self.check(rows)
            return []
        height, width = self._size
        _check_space(place, 3 * height * width * len(rows))
        kept: list[Row] = []
        for good, block in self._blocks(rows):
            for row, pixels in zip(good, block, strict=True):
                self._repeats.add(row, blake2b(pixels.numpy().data, digest_size=16).digest())
            left = block.numpy().data.cast("B")
            while left:
                left = left[os.write(file, left) :]
            kept += good
        self._shape = (len(kept), 3, height, width)
        return kept

    def check(self, rows: list[Row]) -> list[Row]:
        """Decode rows only to find their problems, and return the good ones."""
        return [row for good, _ in self._blocks(rows) for row in good]

    def mapped(self, file: int) -> Tensor:
        """Return what was written, (N, 3, H, W) uint8; the mapping keeps the file open."""
        import torch

        size = math.prod(self._shape)
        mapping = mmap.mmap(file, size)
        return torch.frombuffer(mapping, dtype=torch.uint8).view(self._shape)

    @cached_property
    def _size(self) -> tuple[int, int] | None:
        """(height, width) of the result: the requested size, else the most frequent of a sample."""
        if self._source.size is not None:
            return self._source.size
        sample = self._rows[:: -(-len(self._rows) // SAMPLE) or 1]
        sizes = Counter(self._sizes(sample))
        if not sizes:  # all of the sample are bad
            return next(self._sizes(self._rows), None)
        return sizes.most_common(1)[0][0]

    def _sizes(self, rows: list[Row]) -> Iterator[tuple[int, int]]:
        from debiasbench.files import images

        for row in rows:
            with suppress(images.BadImage):
                image = images.read(row.path, convert=self._source.convert)
                yield image.height, image.width

    def _blocks(self, rows: list[Row]) -> Iterator[tuple[list[Row], Tensor]]:
        """Yield the good rows, a block at a time, with their pixels (n, 3, H, W)."""
        from debiasbench.files import images

        shape, length = None, BLOCK_IMAGES
        if self._size is not None:
            height, width = self._size
            scaling = self._source.size is not None
            shape = images.stretched(height, width) if scaling else _only(height, width)
            length = max(1, min(BLOCK_IMAGES, BLOCK_BYTES // (3 * height * width)))
        if self._progress is not None and rows:
            self._progress.start("decode", len(rows))
        for start in range(0, len(rows), length):
            block = rows[start : start + length]
            yield from self._decode(block, shape)
            self._advance(len(block))
        if self._progress is not None:
            self._progress.finish()

    def _advance(self, count: int) -> None:
        if self._progress is not None:
            for _ in range(count):
                self._progress.advance()

    def _decode(self, rows: list[Row], shape: Shape | None) -> Iterator[tuple[list[Row], Tensor]]:
        """Decode all rows; if one is bad, decode each half, down to the bad one."""
        from debiasbench.files import images

        try:
            block = images.decode(
                [row.path for row in rows], shape, convert=self._source.convert
            )  # (n, 3, H, W)
        except images.BadImage as error:
            if len(rows) == 1:
                self.problems.append(_problem(rows[0], error))
                return
        else:
            yield rows, block
            return
        middle = len(rows) // 2
        yield from self._decode(rows[:middle], shape)
        yield from self._decode(rows[middle:], shape)


def _problem(row: Row, error: DataError) -> Problem:
    message = str(error).removeprefix(f"{row.path} ").replace("(convert)", "(--convert)")
    return Problem(row.line, row.file, message)


def _only(height: int, width: int) -> Shape:
    """Refuse images of another size."""

    def check(image: Image.Image) -> Image.Image:
        if image.size != (width, height):
            raise ValueError(
                f"is {image.height}x{image.width} (height x width), but others are "
                f"{height}x{width}. Use --size {height}x{width} to scale all images"
            )
        return image

    return check


def _check_space(place: Path, size: int) -> None:
    needed = 2 * size + MARGIN  # once while decoding, once in the data set
    free = shutil.disk_usage(place).free
    if free < needed:
        raise DataError(
            f"The import needs {needed / 1e9:.1f} GB under {place}, but only {free / 1e9:.1f} GB "
            "are free. Free some space, or choose another --data-root or a smaller --size"
        )

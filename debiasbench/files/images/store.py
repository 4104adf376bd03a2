"""Where decoded images are stored: in an array, or in an unnamed file in memory or on the disk."""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import numpy as np
import torch

from debiasbench.common.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

IN_MEMORY = 1 << 30  # bytes; a larger result is stored on the disk


class Store:
    """Collects images into one tensor of a known shape.

    A file is written, not mapped, while images are decoded. Then a full disk raises an error
    instead of killing the process, several processes can share the file, and each page is touched
    once.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], workspace: Path | None, *, shared: bool
    ) -> None:
        self._shape, self._row_bytes = shape, shape[1] * shape[2] * shape[3]
        self._size = shape[0] * self._row_bytes
        self._workspace, self._shared = workspace, shared  # with other processes
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
            self._file.close()  # the mapping stays valid

    def put(self, at: int, planes: NDArray[np.uint8]) -> None:
        """Store image number `at`, (3, H, W)."""
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
        """Return all images; a file is deleted when the tensor is."""
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
            setting = "the environment variable TMPDIR" if self._workspace is None else "workspace"
            raise DataError(
                f"The decoded images need {self._size / 1e9:.1f} GB and cannot be written to "
                f"{folder} ({error.strerror or error}). Free some space, or choose another folder "
                f"with {setting}"
            ) from error


def _allocate(file: int, size: int) -> None:
    """Reserve the disk space first, so that a full disk is found before decoding starts."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:  # not every file system can
                raise


def _free_memory() -> int:
    """Return the bytes available without swapping; 4 GiB where the system is not Linux."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return 1 << 32
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * sum(kilobytes)

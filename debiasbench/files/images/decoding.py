"""Decode many image files into one tensor, on all cores."""

from __future__ import annotations

import gc
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np

from debiasbench.common.errors import DataError, Interrupted
from debiasbench.common.processes import cores
from debiasbench.common.signals import SIGNALS, check
from debiasbench.files.images.reading import BadImage, quiet, read_quietly
from debiasbench.files.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

    from debiasbench.files.images.shapes import Shape

MANY = 256  # files for which starting processes is worth the time
BLOCK = 8  # files that a process decodes at a time
WAIT = 0.2  # seconds between two looks at signals


def decode(
    files: Sequence[Path],
    shape: Shape | None = None,
    *,
    convert: bool = False,
    workers: int | None = None,
    workspace: Path | None = None,
) -> Tensor:
    """Read files as one (N, 3, H, W) uint8 tensor, in their order, each by the rules of `read`.

    `shape`: changes each image first; a `ValueError` it raises is reported as a bad image.
    `workers`: number of processes, or of threads for few files; by default one per core. The
    result does not depend on it.
    `workspace`: folder for a result above 1 GiB or a quarter of the free memory. Such a result is
    memory-mapped from an unnamed file, which is deleted with the tensor. By default the temporary
    folder of the system.

    Raises `BadImage` for the first bad file in order, and `DataError` if images differ in size,
    no file is given, or the disk is full.
    """
    if not files:
        raise DataError("There is no image to decode: give at least one file")
    with quiet():
        first = _shaped(files[0], shape, convert)

        def fill(start: int) -> None:
            for at, path in enumerate(files[start : start + BLOCK], start):
                image = _shaped(path, shape, convert)
                if image.size != first.size:
                    raise DataError(
                        f"{path} is {image.width}x{image.height}, {files[0]} is "
                        f"{first.width}x{first.height} (width x height). All images must have the "
                        "same size: scale or crop them"
                    )
                store.put(at, _planes(image))

        starts, workers = range(0, len(files), BLOCK), workers or cores()
        forking = workers > 1 and len(files) >= MANY and sys.platform == "linux"
        size = (len(files), 3, first.height, first.width)
        with Store(size, workspace, shared=forking) as store:
            if forking:
                _run_processes(fill, starts, workers)
            else:
                with ThreadPoolExecutor(workers) as pool:
                    # results arrive in order, so the first error in order is raised
                    for _ in pool.map(fill, starts):
                        pass
            return store.tensor()


def _run_processes(fill: Callable[[int], None], starts: Sequence[int], workers: int) -> None:
    """Call `fill` for all starts in forked processes, which share the file of the store.

    Threads would wait for each other half of the time, because Pillow holds the interpreter lock.
    """
    context, parent = get_context("fork"), os.getpid()

    def work(share: Sequence[int], sender: Connection) -> None:
        gc.disable()  # collecting would copy every page of the parent's objects for nothing
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
        for start in share:
            if os.getppid() != parent:  # the parent was killed, so the result is not needed
                return
            try:
                fill(start)
            except DataError as error:
                sender.send((start, isinstance(error, BadImage), str(error)))
                return
        sender.send(None)

    jobs = []
    for first in range(min(workers, len(starts))):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(starts[first::workers], sender), daemon=True)
        process.start()
        sender.close()
        jobs.append((process, receiver))
    errors: list[tuple[int, bool, str]] = []
    for process, receiver in jobs:
        try:
            while not receiver.poll(WAIT):
                _check_or_end([job for job, _ in jobs])
            if (error := receiver.recv()) is not None:
                errors.append(error)
        except EOFError:
            killed = (
                "A process that decodes images was killed, probably because the memory was full. "
                "Free some memory and try again"
            )
            errors.append((-1, False, killed))
        receiver.close()
        process.join()
    if errors:  # each process sends its first one
        _, is_bad_image, message = min(errors)
        raise BadImage(message) if is_bad_image else DataError(message)


def _check_or_end(processes: Sequence[BaseProcess]) -> None:
    """End the processes if a signal asked this process to stop."""
    try:
        check()
    except Interrupted:
        for process in processes:
            process.terminate()
        raise


def _shaped(path: Path, shape: Shape | None, convert: bool) -> Image.Image:
    image = read_quietly(path, convert)
    if shape is None:
        return image
    try:
        return shape(image)
    except ValueError as error:
        raise BadImage(f"{path} {error}") from error


def _planes(image: Image.Image) -> NDArray[np.uint8]:
    """Return (3, H, W) of an RGB image, through the four bytes per pixel that Pillow stores."""
    pixels = np.frombuffer(image.tobytes("raw", "RGBX"), np.uint8)
    pixels = pixels.reshape(image.height, image.width, 4)
    return np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1))

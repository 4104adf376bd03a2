"""Write the images of a stage to PNG files, and read them with a `DataLoader`."""

from __future__ import annotations

import tempfile
import warnings
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Sampler

from debiasbench.core.inputs import is_mapping, single

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from debiasbench.core.data import Task
    from debiasbench.core.stage import Stage


class Shuffled(Sampler[list[int]]):
    """Divides `size` samples into `steps` complete batches, in a new order each epoch."""

    def __init__(self, size: int, batch_size: int) -> None:
        pool = torch.arange(max(size, batch_size)) % size  # a batch may be larger than `size`
        self._pool, self._batch_size = pool[: len(pool) // batch_size * batch_size], batch_size
        self.steps = 0

    def __iter__(self) -> Iterator[list[int]]:
        """Yield batches of indices; there is no batch after the last step."""
        for index in islice(orders(self._pool, self._batch_size), self.steps):
            yield index.tolist()

    def __len__(self) -> int:
        return self.steps


def is_image(task: Task) -> bool:
    """Return whether samples are 8-bit images of one or three channels, as in image files."""
    x = task.train.x
    if is_mapping(x):
        return False
    x = single(x, "An image file")
    return x.dtype == torch.uint8 and x.dim() == 4 and x.shape[1] in {1, 3}


@contextmanager
def loading(
    stage: Stage, task: Task, files: int, workers: int
) -> Iterator[tuple[DataLoader[Any], Shuffled]]:
    """Write the first images of a stage as PNG files, and yield a usual `DataLoader` for them."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    channels = task.shape.input[0]
    steps: list[object] = [transforms.ToTensor()]
    if task.mean is not None or task.std is not None:
        mean, std = task.mean or (0.0,) * channels, task.std or (1.0,) * channels
        steps.append(transforms.Normalize(mean, std))
    order = Shuffled(files, stage.batches.batch_size)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Python warns about a fork in a process with threads, which every DataLoader does
        warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
        _write(stage, task, files, Path(folder))
        dataset = ImageFolder(
            folder,
            transforms.Compose(steps),
            loader=partial(_open, mode="L" if channels == 1 else "RGB"),
            allow_empty=True,
        )
        loader = DataLoader(
            dataset,
            batch_sampler=order,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=not stage.view.labels["y"].is_cpu,
        )
        try:
            yield loader, order
        finally:
            loader._iterator = None  # ends its processes before their files are removed


def _write(stage: Stage, task: Task, files: int, folder: Path) -> None:
    y = stage.view.labels["y"].cpu()
    digits = len(str(len(task.classes)))
    for c in range(len(task.classes)):  # ImageFolder numbers the classes in the order of names
        (folder / f"{c:0{digits}}").mkdir()
    for index in stage.batches.pool[:files].tolist():
        stored = stage.view.samples.take(torch.tensor([index], device=stage.view.samples.device))
        pixels = single(stored, "An image file")[0].cpu()  # (C, H, W)
        image = Image.fromarray(
            (pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).numpy()
        )
        image.save(folder / f"{int(y[index]):0{digits}}" / f"{index}.png")


def _open(path: str, mode: str) -> Image.Image:
    """Read an image like torchvision's default loader, which only supports RGB."""
    with Path(path).open("rb") as file:
        return Image.open(file).convert(mode)


def orders(pool: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Yield batches of indices (B,) forever, in a new order each epoch."""
    while True:
        order = torch.randperm(len(pool), device=pool.device)
        yield from torch.split(pool[order], batch_size)

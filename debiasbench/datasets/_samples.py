"""Image files with their split, class and bias, decoded into three splits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError
from debiasbench.core.data import Split

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from debiasbench.files.images import Shape

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """An image file and its labels; `split` is an index into `SPLITS`."""

    file: Path
    split: int
    y: int
    bias: int


def splits(
    samples: Iterable[Sample], *, num_biases: int, shape: Shape | None, where: Path
) -> tuple[Split, Split, Split]:
    """Decode samples into train, val and test, as parts of one tensor, each in the given order.

    `where`: the file or folder that lists them, for error messages. Raises `DataError` for a split
    without samples, missing files, and images that `images.decode` refuses.
    """
    import torch

    from debiasbench.files.images import decode

    ordered = sorted(samples, key=lambda sample: sample.split)
    counts = [sum(s.split == i for s in ordered) for i in range(len(SPLITS))]
    for name, count in zip(SPLITS, counts, strict=True):
        if count == 0:
            raise DataError(f"{where} has no {name} sample. Download the complete data set again")
    files = [sample.file for sample in ordered]
    _check_exist(files)
    x = torch.split(decode(files, shape), counts)
    y = torch.split(torch.tensor([sample.y for sample in ordered]), counts)
    bias = torch.split(torch.tensor([sample.bias for sample in ordered]), counts)
    train, val, test = (Split(*parts, num_biases) for parts in zip(x, y, bias, strict=True))
    return train, val, test


def inside(folder: Path, name: str, where: str) -> Path:
    """Return the path of a listed file; raises `DataError` if it is outside the folder.

    `where`: the file and line that list it, for error messages.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise DataError(
            f"{where}: the path {name!r} is empty or outside {folder}. "
            "Images must be inside this folder. Download the original file again"
        )
    return folder.joinpath(*parts)


def _check_exist(files: Sequence[Path]) -> None:
    # listing each folder once is faster: checking 200,000 files one by one takes seconds
    existing = {folder: _names(folder) for folder in {file.parent for file in files}}
    missing = [file for file in files if file.name not in existing[file.parent]]
    if missing:
        raise DataError(
            f"{missing[0]} is missing; {len(missing):,} of {len(files):,} images are missing in "
            "total. Put the images there, or download the complete data set again"
        )


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 - only the names
    except OSError:
        return frozenset()

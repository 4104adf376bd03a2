"""The folders in which DisEnt released CMNIST, CIFAR10-C and BFFHQ, also used by DCWP and REST.

    0.5pct/align/<any>/<index>_<label>_<bias>.png        training, label = bias
    0.5pct/conflict/<any>/...                            training, label != bias
    0.5pct/valid/...  or, beside it,  valid/...
    test/...

Images are in a part, or in folders of a part. Their labels are in their names.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError
from debiasbench.core.data import Task
from debiasbench.datasets._samples import Sample, splits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from debiasbench.files.images import Shape

NAME = re.compile(r".+_([0-9]{1,9})_([0-9]{1,9})\.(?:png|jpg|jpeg)", re.IGNORECASE)
LITTER = {"thumbs.db", "desktop.ini"}  # left by file managers, as are names that begin with a dot


def released(
    folder: Path,
    ratio: float,
    *,
    classes: Sequence[str],
    biases: Sequence[str],
    shape: Shape | None = None,
    shared_valid: bool = False,
    metric: str = "unbiased",
    select: str = "val_unbiased",
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Task:
    """Read a released data set; bias value k is aligned with class k.

    `ratio`: fraction of bias-conflicting training images, which names the folder: 0.005 is
    `0.5pct`. `shared_valid`: whether validation images are beside that folder instead of in it.
    `shape`: changes each image. Images are in the order of their paths, aligned images first.

    Raises `DataError` with the first file that does not fit the layout, or with the missing folder
    and what to put there.
    """
    layout = _Layout(folder, ratio, shared_valid)
    train, val, test = splits(
        layout.samples(len(classes), len(biases)),
        num_biases=len(biases),
        shape=shape,
        where=folder,
    )
    return Task(
        train=train,
        val=val,
        test=test,
        classes=tuple(classes),
        biases=tuple(biases),
        aligned=_eye(len(classes), len(biases)),
        metric=metric,
        select=select,
        mean=mean,
        std=std,
    )


def released_sources(folder: Path, ratio: float, *, shared_valid: bool = False) -> list[Path]:
    """Return the folders that `released` reads, whether they exist or not."""
    layout = _Layout(folder, ratio, shared_valid)
    valid = [layout.valid] if shared_valid else []
    return [layout.train, *valid, layout.test]


def token(ratio: float) -> str:
    """Return the name of the folder for a ratio: `0.5pct` for 0.005, `1pct` for 0.01."""
    return f"{100 * ratio:g}pct"


@dataclass(frozen=True)
class _Layout:
    """The folders of a released data set."""

    folder: Path
    ratio: float
    shared_valid: bool

    @property
    def train(self) -> Path:
        return self.folder / token(self.ratio)

    @property
    def valid(self) -> Path:
        return (self.folder if self.shared_valid else self.train) / "valid"

    @property
    def test(self) -> Path:
        return self.folder / "test"

    def samples(self, num_classes: int, num_biases: int) -> list[Sample]:
        """List all images with the labels in their names."""
        if not self.train.is_dir():
            raise DataError(self._missing(self.train) + self._others())
        parts = (
            (self.train / "align", 0, True),
            (self._conflict(), 0, False),
            (self.valid, 1, None),
            (self.test, 2, None),
        )
        home, samples = self.folder.resolve(), []
        for part, split, aligned in parts:
            if not part.is_dir():
                raise DataError(self._missing(part))
            _check_link(part, home)
            files = list(_files(part, home))
            if not files:
                raise DataError(f"{part} contains no image. {self._advice()}")
            for file in files:
                y, bias = _labels(file, num_classes, num_biases)
                if aligned is not None and (y == bias) is not aligned:
                    raise DataError(
                        f"{file} has label {y} and bias {bias}, so it does not belong under "
                        f"{part.name}. Move it, or download the data set again"
                    )
                samples.append(Sample(file, split, y, bias))
        return samples

    def _conflict(self) -> Path:
        right, misspelt = self.train / "conflict", self.train / "conlict"
        if right.exists() and misspelt.exists():
            raise DataError(f"{right} and {misspelt} both exist: keep one")
        # the spelling in the READMEs of DisEnt and DCWP
        return misspelt if misspelt.exists() else right

    def _missing(self, path: Path) -> str:
        return f"{path} is not a folder. {self._advice()}"

    def _advice(self) -> str:
        name, ratio = self.folder.name, token(self.ratio)
        valid = "valid" if self.shared_valid else f"{ratio}/valid"
        return (
            f"Save the released folder as {self.folder}, with {ratio}/align, {ratio}/conflict, "
            f"{valid} and test (`debiasbench show {name}` names the source). To use another data "
            "root, set --data-root or DEBIASBENCH_DATA"
        )

    def _others(self) -> str:
        tokens = (
            re.fullmatch(r"[0-9]+(\.[0-9]+)?pct", path.name) for path in _folders(self.folder)
        )
        names = sorted((match[0] for match in tokens if match), key=lambda name: float(name[:-3]))
        if not names:
            return ""
        ratio = f"{float(names[0][:-3]) / 100:g}"
        return (
            f". Existing ratios: {', '.join(names)}. To use {names[0]}, add --set "
            f"dataset.ratio={ratio}"
        )


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _files(part: Path, home: Path, *, depth: int = 0) -> Iterator[Path]:
    """Yield the files of a part and of its folders, in the order of their paths.

    Deeper folders are refused, so a loop of links cannot hang.
    """
    with os.scandir(part) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name.lower() in LITTER:
            continue
        if entry.is_symlink():
            _check_link(path, home)
        if not entry.is_dir():
            yield path
        elif depth == 0:
            yield from _files(path, home, depth=1)
        else:
            raise DataError(
                f"{path} is a folder where an image is expected. Move its images up, or remove it"
            )


def _check_link(path: Path, home: Path) -> None:
    """Raise `DataError` if a link is broken or points outside the folder of the data set."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # a loop of links raises one or the other
        raise DataError(f"{path} is a broken link. Remove it") from error
    if not target.is_relative_to(home):
        raise DataError(
            f"{path} is a link to {target}, outside {home}. Replace the link with a copy"
        )


def _labels(file: Path, num_classes: int, num_biases: int) -> tuple[int, int]:
    match = NAME.fullmatch(file.name)
    if match is None:
        raise DataError(
            f"{file} is not named <index>_<label>_<bias>.png (or .jpg), so it has no labels. "
            "Rename or remove it"
        )
    y, bias = int(match[1]), int(match[2])
    for name, value, count in (("label", y, num_classes), ("bias", bias, num_biases)):
        if value >= count:
            raise DataError(
                f"{file} has {name} {value}, must be 0 to {count - 1}. Rename or remove it"
            )
    return y, bias


def _eye(num_classes: int, num_biases: int) -> Tensor:
    import torch

    return torch.eye(num_classes, num_biases, dtype=torch.bool)

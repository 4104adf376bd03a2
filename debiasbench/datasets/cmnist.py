"""Coloured MNIST: made from MNIST by DisEnt's rule or LfF's, or read as it was released."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from debiasbench.common.errors import DataError
from debiasbench.common.options import option
from debiasbench.core.data import Dataset, Task
from debiasbench.datasets._released import released, released_sources
from debiasbench.datasets._sources import MNIST as MNIST_FILES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from debiasbench.core.download import Download

VAL_PER_CLASS = 500
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class CMNIST(Dataset):
    """Coloured MNIST: digits whose colour gives the class away in training."""

    citation: ClassVar[str] = (
        "Lee et al. Learning Debiased Representation via Disentangled Feature Augmentation. "
        "NeurIPS 2021. Digits: LeCun et al., 1998."
    )
    source: ClassVar[str] = (
        "made from MNIST (`debiasbench data prepare cmnist`, or files in torchvision's layout "
        "under the data root); variant=released: the folder cmnist as DisEnt released it"
    )
    licence: ClassVar[str] = "CC BY-SA 3.0"
    downloads: ClassVar[Sequence[Download]] = MNIST_FILES
    # REST's settings, with fewer epochs: what two cores can do
    training: ClassVar[Mapping[str, object]] = {
        "epochs": 8,
        "batch_size": 256,
        "lr": 0.01,
    }

    ratio: float = option(0.01, "fraction of bias-conflicting training images", ge=0, le=1)
    split_seed: int = option(0, "which digits and colours go where", ge=0)
    variant: Literal["disent", "lff", "released"] = option(
        "disent",
        "pure colours on black; LfF's palette, noise and shades; or the released images",
        later=True,
    )
    severity: int = option(
        4, "of lff: 1 to 5, from much to little noise in the colour", ge=1, le=5, later=True
    )

    def sources(self, root: Path) -> Sequence[Path]:
        """MNIST's four files, or the released folders."""
        if self.variant == "released":
            return released_sources(root / "cmnist", self.ratio)
        return [root / "MNIST" / "raw" / name for name in FILES]

    def load(self, root: Path) -> Task:
        """55,000 training images, 5,000 validation and 10,000 test images of balanced colour.

        As released, validation images are as biased as training ones.
        """
        from debiasbench.datasets._colour import (
            COLOURS,
            coloured_task,
            generator,
            lff_colour,
            take_per_class,
        )

        if self.variant == "released":
            return released(
                root / "cmnist", self.ratio, classes=tuple("0123456789"),
                biases=tuple(name for name, _ in COLOURS),
            )  # fmt: skip
        grey, y = _mnist(root, train=True)
        val, train = take_per_class(y, VAL_PER_CLASS, generator(self.split_seed, "val"))
        parts = {
            "train": (grey[train], y[train]),
            "val": (grey[val], y[val]),
            "test": _mnist(root, train=False),
        }
        paint = partial(lff_colour, severity=self.severity) if self.variant == "lff" else None
        return coloured_task(parts, self.ratio, self.split_seed, paint=paint)


def _mnist(root: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """Read (N, 28, 28) uint8 images and (N,) int64 labels."""
    from torchvision.datasets import MNIST

    raw = root / "MNIST" / "raw"
    for name in FILES:
        if not (raw / name).is_file():
            raise DataError(
                f"{raw / name} is missing. Fetch it with `debiasbench data prepare cmnist`, or "
                "give the folder that holds MNIST/raw with --data-root or DEBIASBENCH_DATA"
            )
    try:
        mnist = MNIST(str(root), train=train, download=False)
    except (AssertionError, EOFError, OSError, RuntimeError, TypeError, ValueError) as error:
        images, labels = FILES[:2] if train else FILES[2:]
        raise DataError(
            f"{raw / images} or {labels} is truncated or no MNIST file ({error}). "
            "Remove both and fetch them again"
        ) from error
    return mnist.data, mnist.targets

"""Coloured MNIST: made from MNIST by the rule of DisEnt or LfF, or read as released."""

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
    """Coloured MNIST: digits whose colour predicts the class in training."""

    citation: ClassVar[str] = (
        "Lee et al. Learning Debiased Representation via Disentangled Feature Augmentation. "
        "NeurIPS 2021. Digits: LeCun et al., 1998."
    )
    source: ClassVar[str] = (
        "made from MNIST (run `debiasbench data prepare cmnist`, or put the files under the data "
        "root in the layout of torchvision); variant=released: the folder cmnist released by DisEnt"
    )
    licence: ClassVar[str] = "CC BY-SA 3.0"
    downloads: ClassVar[Sequence[Download]] = MNIST_FILES
    # the settings of REST, with fewer epochs for two CPU cores
    training: ClassVar[Mapping[str, object]] = {
        "epochs": 8,
        "batch_size": 256,
        "lr": 0.01,
    }

    ratio: float = option(0.01, "fraction of bias-conflicting training images", ge=0, le=1)
    split_seed: int = option(0, "seed of the splits and the colours", ge=0)
    variant: Literal["disent", "lff", "released"] = option(
        "disent",
        "disent: pure colours; lff: palette and noise of LfF; released: the released images",
        absent="disent",
    )
    severity: int = option(
        4,
        "for variant=lff: noise of the colour, from 1 (most) to 5 (least)",
        ge=1,
        le=5,
        absent=4,
    )
    val: Literal["balanced", "biased"] = option(
        "balanced",
        "balanced: all colours are equally frequent in the validation split; biased: as biased as "
        "the training split, as in the released folders",
        absent="balanced",
    )

    def sources(self, root: Path) -> Sequence[Path]:
        """Return the four files of MNIST, or the released folders."""
        if self.variant == "released":
            return released_sources(root / "cmnist", self.ratio)
        return [root / "MNIST" / "raw" / name for name in FILES]

    def load(self, root: Path) -> Task:
        """55,000 training images, 5,000 validation and 10,000 test images of balanced colour.

        With val=biased or variant=released, the validation split is as biased as the training
        split. Images and colours of the other splits are the same for both values of `val`.
        """
        from debiasbench.datasets._assignment import generator, take_per_class
        from debiasbench.datasets._colour import COLOURS, lff_colour
        from debiasbench.datasets._coloured import coloured_task

        if self.variant == "released":
            return released(
                root / "cmnist",
                self.ratio,
                classes=tuple("0123456789"),
                biases=tuple(name for name, _ in COLOURS),
            )
        grey, y = _mnist(root, train=True)
        val, train = take_per_class(y, VAL_PER_CLASS, generator(self.split_seed, "val"))
        parts = {
            "train": (grey[train], y[train]),
            "val": (grey[val], y[val]),
            "test": _mnist(root, train=False),
        }
        paint = partial(lff_colour, severity=self.severity) if self.variant == "lff" else None
        return coloured_task(
            parts, self.ratio, self.split_seed, paint=paint, biased_val=self.val == "biased"
        )


def _mnist(root: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """Read (N, 28, 28) uint8 images and (N,) int64 labels."""
    from torchvision.datasets import MNIST

    raw = root / "MNIST" / "raw"
    for name in FILES:
        if not (raw / name).is_file():
            raise DataError(
                f"{raw / name} is missing. Download it with `debiasbench data prepare cmnist`, or "
                "give the folder that contains MNIST/raw with --data-root or DEBIASBENCH_DATA"
            )
    try:
        mnist = MNIST(str(root), train=train, download=False)
    except (AssertionError, EOFError, OSError, RuntimeError, TypeError, ValueError) as error:
        images, labels = FILES[:2] if train else FILES[2:]
        raise DataError(
            f"{raw / images} or {labels} is truncated or not an MNIST file ({error}). Remove both "
            "and download them again with `debiasbench data prepare cmnist`"
        ) from error
    return mnist.data, mnist.targets

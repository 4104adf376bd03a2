"""Coloured MNIST, made from MNIST files already on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from debiasbench.data import Dataset, Task
from debiasbench.errors import DataError
from debiasbench.options import option

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

VAL_PER_CLASS = 500


@dataclass(frozen=True)
class CMNIST(Dataset):
    """Coloured MNIST: digits whose colour gives the class away in training."""

    citation: ClassVar[str] = (
        "Lee et al. Learning Debiased Representation via Disentangled Feature Augmentation. "
        "NeurIPS 2021. Digits: LeCun et al., 1998."
    )
    source: ClassVar[str] = "MNIST files in torchvision's layout under the data root"
    licence: ClassVar[str] = "CC BY-SA 3.0"
    # REST's settings, with fewer epochs: what two cores can do
    training: ClassVar[Mapping[str, object]] = {
        "epochs": 8,
        "batch_size": 256,
        "lr": 0.01,
    }

    ratio: float = option(0.01, "fraction of bias-conflicting training images", ge=0, le=1)
    split_seed: int = option(0, "which digits and colours go where", ge=0)

    def load(self, root: Path) -> Task:
        """55,000 training images, 5,000 validation and 10,000 test images of balanced colour."""
        from debiasbench.datasets._colour import coloured_task, generator, take_per_class

        grey, y = _mnist(root, train=True)
        val, train = take_per_class(y, VAL_PER_CLASS, generator(self.split_seed, "val"))
        parts = {
            "train": (grey[train], y[train]),
            "val": (grey[val], y[val]),
            "test": _mnist(root, train=False),
        }
        return coloured_task(parts, self.ratio, self.split_seed)


def _mnist(root: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """Read (N, 28, 28) uint8 images and (N,) int64 labels."""
    from torchvision.datasets import MNIST

    raw = root / "MNIST" / "raw"
    parts = {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
             "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}  # fmt: skip
    for name in (*parts["train"], *parts["test"]):
        if not (raw / name).is_file():
            raise DataError(
                f"{raw / name} is missing. Give the folder that holds MNIST/raw with --data-root "
                'or DEBIASBENCH_DATA, or fetch it once: python -c "from torchvision.datasets '
                f"import MNIST; MNIST('{root}', download=True)\""
            )
    try:
        mnist = MNIST(str(root), train=train, download=False)
    except (AssertionError, EOFError, OSError, RuntimeError, TypeError, ValueError) as error:
        images, labels = parts["train" if train else "test"]
        raise DataError(
            f"{raw / images} or {labels} is truncated or no MNIST file ({error}). "
            "Remove both and fetch them again"
        ) from error
    return mnist.data, mnist.targets

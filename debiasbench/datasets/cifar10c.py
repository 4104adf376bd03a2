"""Biased CIFAR10-C: CIFAR-10 images whose corruption predicts the class in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from debiasbench.common.errors import DataError
from debiasbench.common.options import option
from debiasbench.core.data import Dataset, Split, Task
from debiasbench.datasets._released import released, released_sources
from debiasbench.datasets._sources import CIFAR10

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from debiasbench.core.data import Augment
    from debiasbench.core.download import Download

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILES = ("test_batch.bin",)
RECORDS = 10_000  # per file
RECORD_BYTES = 1 + 3 * 32 * 32  # label, then red, green and blue
VAL_PER_CLASS = 500
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # as in the reference code
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@dataclass(frozen=True)
class CIFAR10C(Dataset):
    """Biased CIFAR10-C: photographs whose corruption predicts the class in training."""

    citation: ClassVar[str] = (
        "Nam et al. Learning from Failure. NeurIPS 2020. Lee et al. Learning Debiased "
        "Representation via Disentangled Feature Augmentation. NeurIPS 2021. Corruptions: "
        "Hendrycks, Dietterich. Benchmarking Neural Network Robustness to Common Corruptions and "
        "Perturbations. ICLR 2019. Images: Krizhevsky. Learning Multiple Layers of Features from "
        "Tiny Images. 2009."
    )
    source: ClassVar[str] = (
        "made from the binary version of CIFAR-10 (run `debiasbench data prepare cifar10c`, or put "
        f"{FOLDER} under the data root); variant=released: the folder cifar10c released by DisEnt"
    )
    downloads: ClassVar[Sequence[Download]] = CIFAR10
    licence: ClassVar[str] = "not stated; CIFAR-10 asks to cite Krizhevsky, 2009"
    # batch size and learning rate of DisEnt, epochs of REST; needs a GPU
    training: ClassVar[Mapping[str, object]] = {
        "epochs": 100,
        "batch_size": 256,
        "lr": 0.001,
    }
    model: ClassVar[str] = "resnet18"
    augmentation_options: ClassVar[Sequence[str]] = ("augment",)

    ratio: float = option(0.01, "fraction of bias-conflicting training images", ge=0, le=1)
    severity: int = option(5, "severity of the corruptions; published results use 5", ge=1, le=5)
    split_seed: int = option(0, "seed of the splits and the corruptions", ge=0)
    augment: bool = option(True, "crop and mirror training images at random")
    variant: Literal["made", "released"] = option(
        "made", "made: from CIFAR-10; released: the released images"
    )
    val: Literal["balanced", "biased"] = option(
        "balanced",
        "balanced: all corruptions are equally frequent in the validation split; biased: as biased "
        "as the training split, as in the released folders",
        absent="balanced",
    )

    def sources(self, root: Path) -> Sequence[Path]:
        """Return the six files of CIFAR-10, or the released folders."""
        if self.variant == "released":
            return released_sources(root / "cifar10c", self.ratio)
        return [root / FOLDER / name for name in (*TRAIN_FILES, *TEST_FILES)]

    def augmentation(self) -> Augment | None:
        """Crop images padded by 4 pixels and mirror half of them, as published."""
        from debiasbench.files.augment import CropFlip

        return CropFlip(padding=4) if self.augment else None

    def load(self, root: Path) -> Task:
        """45,000 training images, 5,000 validation and 10,000 test images, 32x32.

        In training, class k is aligned with corruption k. In the other splits, all corruptions are
        equally frequent in every class; these splits are the same at every `ratio`. With
        val=biased or variant=released, the validation split is as biased as the training split.
        """
        import torch

        from debiasbench.datasets._assignment import (
            balanced_values,
            biased_values,
            generator,
            take_per_class,
        )
        from debiasbench.datasets._corruptions import NAMES

        if self.variant == "released":
            return released(
                root / "cifar10c", self.ratio, classes=CLASSES, biases=NAMES, mean=MEAN, std=STD
            )
        clean, y = _cifar10(root)
        last = len(TRAIN_FILES) * RECORDS
        val, train = take_per_class(y[:last], VAL_PER_CLASS, generator(self.split_seed, "val"))

        def split(name: str, index: Tensor, ratio: float | None = None) -> Split:
            rng = generator(self.split_seed, "corruptions", name)
            labels = y[index]
            if ratio is None:
                bias = balanced_values(labels, rng)
            else:
                bias = biased_values(labels, ratio, rng)
            x = self._corrupted(clean[index], bias, index)
            return Split(x, labels, bias, num_biases=len(NAMES))

        return Task(
            train=split("train", train, self.ratio),
            val=split("val", val, self.ratio if self.val == "biased" else None),
            test=split("test", torch.arange(last, len(y))),
            classes=CLASSES,
            biases=NAMES,
            aligned=torch.eye(len(CLASSES), dtype=torch.bool),
            metric="unbiased",
            select="val_unbiased",
            mean=MEAN,
            std=STD,
        )

    def _corrupted(self, x: Tensor, bias: Tensor, index: Tensor) -> Tensor:
        """Corrupt (N, 3, 32, 32) images in place, each by its (N,) bias.

        `index`: (N,) numbers among all images. The corruption of an image depends on its number,
        not on its split or on other images.
        """
        from debiasbench.datasets._corruptions import NAMES, corrupt

        for k, name in enumerate(NAMES):
            members = bias == k
            x[members] = corrupt(name, x[members], self.severity, index[members], self.split_seed)
        return x


def _cifar10(root: Path) -> tuple[Tensor, Tensor]:
    """Read (60000, 3, 32, 32) uint8 images and (60000,) int64 labels, training images first."""
    import torch

    files = [root / FOLDER / name for name in (*TRAIN_FILES, *TEST_FILES)]
    x = torch.empty(len(files) * RECORDS, 3, 32, 32, dtype=torch.uint8)
    y = torch.empty(len(x), dtype=torch.int64)
    for at, path in zip(range(0, len(x), RECORDS), files, strict=True):
        records = _records(path)  # (10000, 3073)
        y[at : at + RECORDS] = records[:, 0]
        x[at : at + RECORDS] = records[:, 1:].view(-1, 3, 32, 32)
    return x, y


def _records(path: Path) -> Tensor:
    """Read (RECORDS, RECORD_BYTES) uint8, labels first."""
    import numpy as np
    import torch

    if not path.is_file():
        raise DataError(
            f"{path} is missing. Download it with `debiasbench data prepare cifar10c`, or unpack "
            f"{URL} under the data root. To use another data root, set --data-root or "
            "DEBIASBENCH_DATA"
        )
    remedy = (
        "Remove it and download it again with `debiasbench data prepare cifar10c`, or unpack it "
        f"from {URL} (the binary version)"
    )
    size = path.stat().st_size
    if size != RECORDS * RECORD_BYTES:
        raise DataError(
            f"{path} has {size} bytes, must have {RECORDS * RECORD_BYTES}: it is truncated or not "
            f"a file of CIFAR-10. {remedy}"
        )
    try:
        records = torch.from_numpy(np.fromfile(path, dtype=np.uint8)).view(RECORDS, RECORD_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}). {remedy}") from error
    if (largest := int(records[:, 0].max())) >= len(CLASSES):
        raise DataError(
            f"{path} has the label {largest}, must have 0 to {len(CLASSES) - 1}: it is not a file "
            f"of CIFAR-10. {remedy}"
        )
    return records

"""The embedded default: real handwritten digits with a colour shortcut, no download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from debiasbench.common.options import option
from debiasbench.core.data import Dataset, Task

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

VAL_PER_CLASS, TEST_PER_CLASS = 30, 50  # multiples of ten, so that colours balance exactly
LFF_SEVERITY = 4


@dataclass(frozen=True)
class Digits(Dataset):
    """1,797 handwritten digits, coloured so that the colour gives the digit away in training."""

    citation: ClassVar[str] = (
        "Alpaydin, Kaynak. Optical Recognition of Handwritten Digits. UCI, 1998. "
        "Colours: Lee et al., NeurIPS 2021 (CMNIST)."
    )
    source: ClassVar[str] = "carried by scikit-learn"
    licence: ClassVar[str] = "CC BY 4.0"
    training: ClassVar[Mapping[str, object]] = {
        "epochs": 20,
        "batch_size": 64,
        "lr": 0.1,
        "weight_decay": 0.01,
        "schedule": "cosine",
    }

    ratio: float = option(0.05, "fraction of bias-conflicting training images", ge=0, le=1)
    split_seed: int = option(0, "which digits and colours go where", ge=0)
    palette: Literal["cmnist", "lff"] = option(
        "cmnist", "pure colours, or LfF's muted ones with a little noise", absent="cmnist"
    )
    place_ratio: float | None = option(
        None, "the same of a second shortcut, the digit's place; none: without", ge=0, le=1,
        absent=None,
    )  # fmt: skip

    def load(self, root: Path) -> Task:
        """997 training images, 300 validation and 500 test images of balanced colour, 28x28.

        A shortcut whose ratio is 0.9 is none: its values are as frequent in every class.
        """
        import numpy as np
        import torch
        from PIL import Image
        from sklearn.datasets import load_digits

        from debiasbench.datasets._colour import (
            coloured_task,
            generator,
            lff_colour,
            take_per_class,
        )

        digits = load_digits()
        small = np.round(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
        large = [Image.fromarray(i).resize((28, 28), Image.Resampling.BILINEAR) for i in small]
        grey = torch.from_numpy(np.stack([np.asarray(i) for i in large]))  # (1797, 28, 28)
        y = torch.from_numpy(digits.target.astype(np.int64))

        test, rest = take_per_class(y, TEST_PER_CLASS, generator(self.split_seed, "test"))
        val, train = take_per_class(y[rest], VAL_PER_CLASS, generator(self.split_seed, "val"))
        where = {"train": rest[train], "val": rest[val], "test": test}
        parts = {name: (grey[index], y[index]) for name, index in where.items()}
        paint = partial(lff_colour, severity=LFF_SEVERITY) if self.palette == "lff" else None
        return coloured_task(
            parts, self.ratio, self.split_seed, paint=paint, place_ratio=self.place_ratio
        )

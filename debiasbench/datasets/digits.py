"""The default data set: handwritten digits with a colour bias, included in scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from debiasbench.common.options import option
from debiasbench.core.data import Dataset, Task

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

VAL_PER_CLASS, TEST_PER_CLASS = 30, 50  # multiples of ten, so that colours are exactly balanced
LFF_SEVERITY = 4


@dataclass(frozen=True)
class Digits(Dataset):
    """1,797 handwritten digits; in training the colour predicts the digit."""

    citation: ClassVar[str] = (
        "Alpaydin, Kaynak. Optical Recognition of Handwritten Digits. UCI, 1998. "
        "Colours: Lee et al., NeurIPS 2021 (CMNIST)."
    )
    source: ClassVar[str] = "included in scikit-learn"
    licence: ClassVar[str] = "CC BY 4.0"
    training: ClassVar[Mapping[str, object]] = {
        "epochs": 20,
        "batch_size": 64,
        "lr": 0.1,
        "weight_decay": 0.01,
        "schedule": "cosine",
    }

    ratio: float = option(0.05, "fraction of bias-conflicting training images", ge=0, le=1)
    split_seed: int = option(0, "seed of the splits and the colours", ge=0)
    palette: Literal["cmnist", "lff"] = option(
        "cmnist",
        "cmnist: pure colours; lff: the muted colours of LfF with little noise",
        absent="cmnist",
    )
    place_ratio: float | None = option(
        None,
        "ratio of a second bias, the place of the digit; none: no second bias",
        ge=0,
        le=1,
        absent=None,
    )
    val: Literal["balanced", "biased"] = option(
        "balanced",
        "balanced: all colours are equally frequent in the validation split; biased: as biased as "
        "the training split",
        absent="balanced",
    )

    def load(self, root: Path) -> Task:
        """997 training images, 300 validation and 500 test images of balanced colour, 28x28.

        With val=biased, the validation split is as biased as the training split. A ratio of 0.9
        means no bias: all values are equally frequent in every class.
        """
        import numpy as np
        import torch
        from PIL import Image

        from debiasbench.datasets._assignment import generator, take_per_class
        from debiasbench.datasets._colour import lff_colour
        from debiasbench.datasets._coloured import coloured_task

        images, target = _digits()
        small = np.round(images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
        large = [Image.fromarray(i).resize((28, 28), Image.Resampling.BILINEAR) for i in small]
        grey = torch.from_numpy(np.stack([np.asarray(i) for i in large]))  # (1797, 28, 28)
        y = torch.from_numpy(target.astype(np.int64))

        test, rest = take_per_class(y, TEST_PER_CLASS, generator(self.split_seed, "test"))
        val, train = take_per_class(y[rest], VAL_PER_CLASS, generator(self.split_seed, "val"))
        indices = {"train": rest[train], "val": rest[val], "test": test}
        parts = {name: (grey[index], y[index]) for name, index in indices.items()}
        paint = partial(lff_colour, severity=LFF_SEVERITY) if self.palette == "lff" else None
        return coloured_task(
            parts,
            self.ratio,
            self.split_seed,
            paint=paint,
            place_ratio=self.place_ratio,
            biased_val=self.val == "biased",
        )


def _digits() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the images (1797, 8, 8), from 0 to 16, and the digits (1797,) of scikit-learn.

    Its file is read directly: importing scikit-learn takes 2 s, as long as training for 5 epochs.
    """
    import importlib.util
    from pathlib import Path

    import numpy as np

    package = importlib.util.find_spec("sklearn")
    for place in (package.submodule_search_locations or ()) if package else ():
        file = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            table = np.loadtxt(file, delimiter=",")  # (1797, 65)
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    from sklearn.datasets import load_digits  # a version that keeps the file elsewhere

    digits = load_digits()
    return digits.images, digits.target

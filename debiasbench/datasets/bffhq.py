"""BFFHQ: faces whose gender predicts their age, as released by DisEnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from debiasbench.common.options import option
from debiasbench.core.data import Dataset, Task
from debiasbench.datasets._released import released, released_sources

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from debiasbench.core.data import Augment


@dataclass(frozen=True)
class BFFHQ(Dataset):
    """Faces, young or old; in training nearly all young faces show women, old faces show men.

    Both attributes have the values 0 and 1, and equal values are aligned. The released files do not
    say which value means which age or gender.
    """

    citation: ClassVar[str] = (
        "Kim, Lee, Choo. BiaSwap: Removing Dataset Bias with Bias-Tailored Swapping Augmentation. "
        "ICCV 2021. Files: Lee et al., NeurIPS 2021. Faces: Karras, Laine, Aila. CVPR 2019 (FFHQ)."
    )
    source: ClassVar[str] = (
        "manual download: the folder bffhq of the data linked in "
        "https://github.com/kakaoenterprise/Learning-Debiased-Disentangled, unzipped under the "
        "data root"
    )
    licence: ClassVar[str] = "CC BY-NC-SA 4.0 as FFHQ, one licence per photograph; non-commercial"
    training: ClassVar[Mapping[str, object]] = {
        "epochs": 100,
        "batch_size": 256,
        "lr": 0.001,
        "schedule": "plateau",
    }
    model: ClassVar[str] = "resnet18"

    ratio: float = option(
        0.005, "fraction of bias-conflicting training images; its folder must exist", ge=0, le=1
    )
    size: int = option(128, "pixels in height and width", ge=8, le=1024)

    def sources(self, root: Path) -> Sequence[Path]:
        """Return the folder of the ratio and the folders `valid` and `test`."""
        return released_sources(root / "bffhq", self.ratio, shared_valid=True)

    def load(self, root: Path) -> Task:
        """Images of `size` pixels; half of the validation and test images are conflicting.

        Published results are accuracies on conflicting test images, `conflict`.
        """
        from debiasbench.files.images import stretched

        return released(
            root / "bffhq",
            self.ratio,
            classes=("age 0", "age 1"),
            biases=("gender 0", "gender 1"),
            shape=stretched(self.size, self.size),
            shared_valid=True,
            metric="conflict",
            select="val_conflict",
            # of CIFAR-10, as in DisEnt, DCWP and REST
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2023, 0.1994, 0.2010),
        )

    def augmentation(self) -> Augment:
        """Mirror half of the training images."""
        from debiasbench.files.augment import CropFlip

        return CropFlip(padding=0, flip=True)

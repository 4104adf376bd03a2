"""BFFHQ: faces whose gender gives their age away, as DisEnt released them."""

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
    """Faces, young or old; in training nearly all the young are women and the old are men.

    The files number both attributes 0 and 1, equal for what goes together, and nothing released
    with them says which number is which.
    """

    citation: ClassVar[str] = (
        "Kim, Lee, Choo. BiaSwap: Removing Dataset Bias with Bias-Tailored Swapping Augmentation. "
        "ICCV 2021. Files: Lee et al., NeurIPS 2021. Faces: Karras, Laine, Aila. CVPR 2019 (FFHQ)."
    )
    source: ClassVar[str] = (
        "the folder bffhq of the data linked in "
        "https://github.com/kakaoenterprise/Learning-Debiased-Disentangled, unzipped under the "
        "data root by hand"
    )
    licence: ClassVar[str] = "CC BY-NC-SA 4.0 as FFHQ, each photograph its own; not commercial"
    training: ClassVar[Mapping[str, object]] = {
        "epochs": 100,
        "batch_size": 256,
        "lr": 0.001,
        "schedule": "plateau",
    }
    model: ClassVar[str] = "resnet18"

    ratio: float = option(
        0.005, "fraction of bias-conflicting training images; its folder must be there", ge=0, le=1
    )
    size: int = option(128, "pixels in height and width", ge=8, le=1024)

    def sources(self, root: Path) -> Sequence[Path]:
        """Return the folder of the ratio, `valid` and `test`."""
        return released_sources(root / "bffhq", self.ratio, shared_valid=True)

    def load(self, root: Path) -> Task:
        """Images of `size` pixels; half of the validation and of the test images conflict.

        The published number is the accuracy on conflicting test images, `conflict`.
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
            # of CIFAR-10, as DisEnt, DCWP and REST have it
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2023, 0.1994, 0.2010),
        )

    def augmentation(self) -> Augment:
        """Mirror half of the training images."""
        from debiasbench.files.augment import CropFlip

        return CropFlip(padding=0, flip=True)

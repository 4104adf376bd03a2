"""Waterbirds: birds in front of land or water, from the files of the authors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from debiasbench.common.errors import DataError
from debiasbench.common.options import option
from debiasbench.core.data import Dataset, Task
from debiasbench.core.download import Download

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from debiasbench.core.data import Augment
    from debiasbench.datasets._samples import Sample

FOLDERS = ("waterbirds", "waterbird_complete95_forest2water2")
URL = "https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz"


@dataclass(frozen=True)
class Waterbirds(Dataset):
    """Landbirds and waterbirds; in training 95 % are in front of the matching background."""

    citation: ClassVar[str] = (
        "Sagawa, Koh, Hashimoto, Liang. Distributionally Robust Neural Networks for Group Shifts. "
        "ICLR 2020. Birds: Wah et al., 2011 (CUB-200-2011). Places: Zhou et al., 2017."
    )
    source: ClassVar[str] = f"{URL}, unpacked under the data root"
    downloads: ClassVar[Sequence[Download]] = (
        Download(
            path=f"{FOLDERS[1]}.tar.gz",
            urls=(URL,),
            gives=(f"{FOLDERS[1]}/metadata.csv",),
            unpack="tar",
        ),
    )
    licence: ClassVar[str] = "not stated; made from CUB-200-2011 and Places, for research"
    # the settings of group DRO, with the weak penalty and 300 epochs
    training: ClassVar[Mapping[str, object]] = {
        "epochs": 300,
        "batch_size": 128,
        "lr": 0.001,
        "weight_decay": 0.0001,
    }
    model: ClassVar[str] = "resnet50"
    augmentation_options: ClassVar[Sequence[str]] = ("augment",)

    size: int = option(224, "pixels in height and width", ge=8, le=1024)
    augment: bool = option(
        True,
        "crop and mirror training images; the commands of group DRO and JTT do not",
        absent=True,
    )

    def sources(self, root: Path) -> Sequence[Path]:
        """Return the folder of the data set, or the table that it lacks."""
        folder = _folder(root)
        metadata = folder / "metadata.csv"
        return [folder if metadata.is_file() else metadata]

    def load(self, root: Path) -> Task:
        """4,795 training, 1,199 validation and 5,794 test images, split by the authors.

        Training has 3,498 landbirds on land, 184 on water, 56 waterbirds on land and 1,057 on
        water. In the other splits, half of each class is on land. Images are stretched to 8/7 of
        `size` and cropped in the centre, as in group DRO. Published average accuracies weight the
        groups as in training: `adjusted_average`.
        """
        import torch

        from debiasbench.datasets._samples import splits
        from debiasbench.files.images import chained, cropped, stretched

        metadata = _folder(root) / "metadata.csv"
        if not metadata.is_file():
            raise DataError(
                f"{metadata} is missing. Download it with `debiasbench data prepare waterbirds`, "
                f"or unpack {URL} under the data root {root}. To use another data root, set "
                "--data-root or DEBIASBENCH_DATA"
            )
        larger = int(self.size * 256 / 224)
        train, val, test = splits(
            samples(metadata),
            num_biases=2,
            shape=chained(stretched(larger, larger), cropped(self.size, self.size)),
            where=metadata,
        )
        return Task(
            train=train,
            val=val,
            test=test,
            classes=("landbird", "waterbird"),
            biases=("land", "water"),
            aligned=torch.eye(2, dtype=torch.bool),
            metric="worst_group",
            select="val_worst_group",
            # of ImageNet
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )

    def augmentation(self) -> Augment | None:
        """Crop 70 to 100 % of each training image and mirror half of them.

        As in group DRO with `--augment_data`, and in DFR.
        """
        from debiasbench.files.augment import ResizedCropFlip

        return ResizedCropFlip(scale=(0.7, 1.0), ratio=(3 / 4, 4 / 3)) if self.augment else None


def samples(metadata: Path) -> list[Sample]:
    """Read `metadata.csv` in its order, without checking that the images exist.

    Raises `DataError` with the line of the first error.
    """
    from debiasbench.datasets._samples import Sample, inside
    from debiasbench.datasets._table import by_id, comma_separated, rows

    lines = comma_separated(metadata)
    _, header = next(lines, (1, []))
    columns = ("img_id", "img_filename", "y", "split", "place")
    table = by_id(rows(metadata, lines, header, columns), "img_id").values()
    by_id(iter(table), "img_filename")
    binary, thirds = {"0": 0, "1": 1}, {"0": 0, "1": 1, "2": 2}
    return [
        Sample(
            file=inside(metadata.parent, row["img_filename"], row.where),
            split=row.one_of("split", thirds),
            y=row.one_of("y", binary),
            bias=row.one_of("place", binary),
        )
        for row in table
    ]


def _folder(root: Path) -> Path:
    existing = [root / name for name in FOLDERS if (root / name / "metadata.csv").is_file()]
    return existing[0] if existing else root / FOLDERS[1]  # into which it is downloaded

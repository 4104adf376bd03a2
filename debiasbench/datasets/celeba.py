"""CelebA: faces with one attribute as the class and others as the bias."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from debiasbench.common.errors import DataError, OptionError, suggestion
from debiasbench.common.options import option
from debiasbench.core.data import Dataset, Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from debiasbench.core.data import Augment

SIDE = 178  # pixels, the width of an image; the central square of 178x218 is used


@dataclass(frozen=True)
class CelebA(Dataset):
    """Faces of celebrities; by default the class is blond hair and the bias is gender.

    A class and a bias value are aligned if they occur together in training more often than if they
    were independent: P(class | bias) > P(class). With the defaults, blond men and women who are
    not blond are conflicting, and blond men are the worst group in published results.
    """

    citation: ClassVar[str] = (
        "Liu, Luo, Wang, Tang. Deep Learning Face Attributes in the Wild. ICCV 2015. "
        "As a benchmark of groups: Sagawa et al., ICLR 2020."
    )
    source: ClassVar[str] = (
        "manual download: http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (aligned and cropped "
        "images, attributes, partition), into the folder celeba under the data root"
    )
    licence: ClassVar[str] = "non-commercial research only"
    # the settings of group DRO, with the weak penalty
    training: ClassVar[Mapping[str, object]] = {
        "epochs": 50,
        "batch_size": 128,
        "lr": 0.0001,
        "weight_decay": 0.0001,
    }
    model: ClassVar[str] = "resnet50"
    augmentation_options: ClassVar[Sequence[str]] = ("augment",)

    target: str = option("Blond_Hair", "attribute used as the class")
    bias: str = option("Male", "attribute used as the bias; several are combined with +")
    size: int = option(224, "pixels in height and width", ge=8, le=1024)
    augment: bool = option(
        True,
        "crop and mirror training images; the commands of group DRO and JTT do not",
        absent=True,
    )

    def __post_init__(self) -> None:
        names = [self.target, *self.bias_attributes]
        if "" in names or len(set(names)) < len(names):
            raise OptionError(
                f"target={self.target!r} and bias={self.bias!r} must be different attributes, "
                "such as Blond_Hair and Male+Young"
            )

    @property
    def bias_attributes(self) -> tuple[str, ...]:
        """The attributes that make up the bias."""
        return tuple(name.strip() for name in self.bias.replace(",", "+").split("+"))

    def sources(self, root: Path) -> Sequence[Path]:
        """Return the attributes, the partition and the folder of images."""
        folder = root / "celeba"
        return [
            _either(folder, "list_attr_celeba"),
            _either(folder, "list_eval_partition"),
            _images(folder),
        ]

    def load(self, root: Path) -> Task:
        """162,770 training, 19,867 validation and 19,962 test images, split by the authors.

        The central 178x178 pixels of each image are scaled to `size`, as in group DRO.
        """
        from debiasbench.datasets._samples import Sample, inside, splits
        from debiasbench.datasets._together import together
        from debiasbench.files.images import chained, cropped, stretched

        attributes, partition, images = self.sources(root)
        for path in (attributes, partition, images):
            if not path.exists():
                raise DataError(
                    f"{path} is missing. Put list_attr_celeba.txt, list_eval_partition.txt and "
                    f"img_align_celeba of CelebA into {root / 'celeba'} (`debiasbench show celeba` "
                    "names the source). To use another data root, set --data-root or "
                    "DEBIASBENCH_DATA"
                )
        labels = read_attributes(attributes, (self.target, *self.bias_attributes))
        split_of = read_partition(partition)
        _check_same(labels, split_of, attributes, partition)
        samples = [
            Sample(
                file=inside(images, name, str(partition)),
                split=split,
                y=labels[name][0],
                bias=_number(labels[name][1:]),
            )
            for name, split in split_of.items()
        ]
        train, val, test = splits(
            samples,
            num_biases=2 ** len(self.bias_attributes),
            shape=chained(cropped(SIDE, SIDE), stretched(self.size, self.size)),
            where=partition,
        )
        return Task(
            train=train,
            val=val,
            test=test,
            classes=_values([self.target]),
            biases=_values(self.bias_attributes),
            aligned=together(train, num_classes=2),
            metric="worst_group",
            select="val_worst_group",
            # of ImageNet
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )

    def augmentation(self) -> Augment | None:
        """Crop 70 to 100 % of each training image and mirror half of them.

        As in group DRO with `--augment_data`, which crops the whole image of 178x218 pixels instead
        of the central square.
        """
        from debiasbench.files.augment import ResizedCropFlip

        return ResizedCropFlip(scale=(0.7, 1.0), ratio=(1.0, 4 / 3)) if self.augment else None


def read_attributes(path: Path, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Read image -> 0 or 1 for each attribute in `names`, in the order of the file.

    `path`: `list_attr_celeba.txt` of the authors, or `.csv` of Kaggle, told apart by their content;
    -1 is read as 0. Raises `OptionError` for an unknown attribute, `DataError` for an invalid file.
    """
    from debiasbench.datasets import _table

    signs = {"-1": 0, "0": 0, "1": 1}
    if _table.has_commas(path):
        lines = _table.comma_separated(path)
        _, header = next(lines, (1, []))
    else:
        lines = _table.space_separated(path)
        _, first = next(lines, (1, []))
        if len(first) == 1 and first[0].isdigit():  # the number of images
            _, first = next(lines, (2, []))
        header = ["image_id", *first]
    if len(header) < 3 or not signs.keys().isdisjoint(header):
        raise DataError(
            f"{path} does not begin with the names of the attributes, separated by spaces or "
            f"commas, but with {' '.join(header)[:80]!r}. {_table.AGAIN}"
        )
    for name in names:
        if name not in header[1:]:
            raise OptionError(
                f"CelebA has no attribute {name!r}.{suggestion(name, header[1:])} "
                f"{path} has: {', '.join(header[1:]) or 'none'}"
            )
    table = _table.by_id(_table.rows(path, lines, header, ("image_id", *names)), "image_id")
    return {image: tuple(row.one_of(name, signs) for name in names) for image, row in table.items()}


def read_partition(path: Path) -> dict[str, int]:
    """Read image -> 0 training, 1 validation or 2 test, in the order of the file.

    `path`: `list_eval_partition.txt` of the authors, or `.csv` of Kaggle, told apart by their
    content. Raises `DataError` for an invalid file.
    """
    from debiasbench.datasets import _table

    columns = ["image_id", "partition"]
    if _table.has_commas(path):
        lines = _table.comma_separated(path)
        _, header = next(lines, (1, []))
    else:
        lines, header = _table.space_separated(path), columns
    table = _table.by_id(_table.rows(path, lines, header, columns), "image_id")
    thirds = {"0": 0, "1": 1, "2": 2}
    return {image: row.one_of("partition", thirds) for image, row in table.items()}


def _number(bits: Sequence[int]) -> int:
    """Return the index of a combination of values; the first varies slowest, as in `_values`."""
    return int("".join(map(str, bits)), base=2)


def _values(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        ",".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        for values in itertools.product((0, 1), repeat=len(names))
    )


def _check_same(
    labels: Mapping[str, object], split_of: Mapping[str, int], attributes: Path, partition: Path
) -> None:
    for known, has, other, lacks in (
        (split_of, partition, labels, attributes),
        (labels, attributes, split_of, partition),
    ):
        if missing := [name for name in known if name not in other]:
            raise DataError(
                f"{lacks} lacks {missing[0]}, which {has} contains; {len(missing):,} of "
                f"{len(known):,} images in total. Download both files of the same release again"
            )


def _either(folder: Path, stem: str) -> Path:
    """Return the file of the authors, or that of Kaggle if only that exists."""
    original, kaggle = folder / f"{stem}.txt", folder / f"{stem}.csv"
    return kaggle if kaggle.exists() and not original.exists() else original


def _images(folder: Path) -> Path:
    images = folder / "img_align_celeba"
    nested = images / images.name  # the layout of Kaggle's archive
    return nested if nested.is_dir() else images

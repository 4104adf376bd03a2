"""The data contract: `Split`, `Task`, `Batch` and `Dataset`; the group rule stands here once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from debiasbench.common.errors import DataError, SupervisionError
from debiasbench.core.model import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Generator, Tensor

    from debiasbench.core.download import Download

    Augment = Callable[[Tensor, Generator], Tensor]

SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True, eq=False)
class Split:
    """Samples with their class and their bias attribute.

    `x`: (N, C, H, W) uint8 images, or (N, ...) float32 for anything else; `y`: (N,) int64
    classes; `bias`: (N,) int64 values of the bias attribute, in [0, num_biases).
    """

    x: Tensor
    y: Tensor
    bias: Tensor
    num_biases: int

    def __len__(self) -> int:
        return len(self.y)

    @property
    def group(self) -> Tensor:
        """(N,) int64: class-major index of the (class, bias) group."""
        return self.y * self.num_biases + self.bias


@dataclass(frozen=True, eq=False)
class Task:
    """Three splits and what it takes to read them.

    `aligned`: (classes, biases) bool; which bias values go with which class. Every other
    combination is bias-conflicting.
    `metric`, `select`: the accuracy and the selection rule by which this data set is usually
    judged; tables use them unless told otherwise.
    `mean`, `std`: per channel, subtracted and divided after images are scaled to [0, 1].
    `augment`: changes a training batch (B, *input) of float inputs in [0, 1], before
    normalisation; never called at evaluation.

    Raises `DataError` if anything contradicts itself. A group without samples is allowed;
    a class without training samples is not.
    """

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    biases: tuple[str, ...]
    aligned: Tensor
    metric: str = "unbiased"
    select: str = "val_unbiased"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augment: Augment | None = None

    def __post_init__(self) -> None:
        if tuple(self.aligned.shape) != (len(self.classes), len(self.biases)):
            raise DataError(
                f"aligned is {tuple(self.aligned.shape)}, "
                f"must be (classes, biases) = {(len(self.classes), len(self.biases))}"
            )
        if "bool" not in str(self.aligned.dtype):
            raise DataError(f"aligned is {self.aligned.dtype}, must be bool")
        for name, split in self.splits().items():
            self._check(name, split)
        for what, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.shape.input[0]:
                raise DataError(
                    f"{what} has {len(values)} values for {self.shape.input[0]} channels"
                )
        present = self.train.y.bincount(minlength=len(self.classes))  # (C,)
        if missing := [c for c, n in zip(self.classes, present.tolist(), strict=True) if n == 0]:
            raise DataError(f"Class {missing[0]!r} has no training sample: remove it or add data")

    def _check(self, name: str, split: Split) -> None:
        n = len(split.y)
        if n == 0:
            raise DataError(f"The {name} split is empty")
        types = {"x": ("uint8", "float32"), "y": ("int64",), "bias": ("int64",)}
        for what, allowed in types.items():
            found = str(getattr(split, what).dtype).removeprefix("torch.")
            if found not in allowed:
                raise DataError(f"The {name} split's {what} is {found}, must be {allowed[0]}")
        if len(split.x) != n or len(split.bias) != n:
            raise DataError(
                f"The {name} split has {len(split.x)} x, {n} y and {len(split.bias)} bias values"
            )
        if split.x.shape[1:] != self.train.x.shape[1:] or split.x.dtype != self.train.x.dtype:
            raise DataError(
                f"The {name} split's samples differ from training ones in shape or type"
            )
        if split.num_biases != len(self.biases):
            raise DataError(
                f"The {name} split counts {split.num_biases} biases, the task names "
                f"{len(self.biases)}"
            )
        for what, values, names in (
            ("y", split.y, self.classes),
            ("bias", split.bias, self.biases),
        ):
            low, high = int(values.min()), int(values.max())
            if low < 0 or high >= len(names):
                raise DataError(
                    f"The {name} split has {what} values from {low} to {high}, "
                    f"must lie in 0 to {len(names) - 1}"
                )

    def splits(self) -> dict[SplitName, Split]:
        """Return the splits by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def num_groups(self) -> int:
        """Number of (class, bias) groups, with or without samples."""
        return len(self.classes) * len(self.biases)

    @property
    def shape(self) -> Shape:
        """What a network for this task must fit."""
        return Shape(input=tuple(self.train.x.shape[1:]), classes=len(self.classes))

    def conflict(self, split: Split) -> Tensor:
        """(N,) bool: which samples are bias-conflicting."""
        return ~self.aligned[split.y, split.bias]

    def group_counts(self, split: Split) -> Tensor:
        """(G,) int64: samples per group."""
        return split.group.bincount(minlength=self.num_groups)

    def fingerprint(self) -> str:
        """Hash all samples, labels and their normalisation: equal data, equal fingerprint."""
        from hashlib import blake2b

        digest = blake2b(digest_size=16)
        for split in self.splits().values():
            for tensor in (split.x, split.y, split.bias):
                digest.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
                digest.update(tensor.contiguous().numpy().data)
        rest = (self.classes, self.biases, self.aligned.tolist(), self.mean, self.std)
        digest.update(repr(rest).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Dataset(ABC):
    """A data set: a frozen dataclass whose fields are its options, and a `load`.

    `training` recommends training settings (fields of `Training`), `model` a model, for runs
    that do not choose; `source` and `licence` say where the data come from.
    """

    citation: ClassVar[str] = ""
    source: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    training: ClassVar[Mapping[str, object]] = {}
    model: ClassVar[str] = "cnn"
    downloads: ClassVar[Sequence[Download]] = ()
    """What `debiasbench data prepare` fetches; empty where nothing may be fetched."""
    revision: ClassVar[int] = 1
    """Raise it when `load` comes to return other data, so that no cache of before is used."""

    @abstractmethod
    def load(self, root: Path) -> Task:
        """Read or make the task; files lie under `root`.

        Equal options give equal bytes. Raises `DataError` saying what to put where.
        """

    def sources(self, root: Path) -> Sequence[Path]:
        """Return the files and folders that `load` reads; a task made from some is cached.

        The cache is used while names, sizes and times of change are the same. It holds no
        `Task.augment`: say that in `augmentation`.
        """
        return ()

    def augmentation(self) -> Augment | None:
        """Return what changes training batches, for tasks whose `augment` is None."""
        return None


class Batch:
    """What an objective sees of B samples: x, y, index, and the labels its method declares.

    `x`: (B, *input) float; `y`: (B,) int64; `index`: (B,) int64 positions in the split;
    `group`, `bias`: (B,) int64 and `conflict`: (B,) bool, only if declared; and the tensors
    that the stage was given as `extra`, by their names.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    group: Tensor
    bias: Tensor
    conflict: Tensor

    def __init__(self, x: Tensor, y: Tensor, index: Tensor, **more: Tensor) -> None:
        self.x, self.y, self.index = x, y, index
        self.__dict__.update(more)

    def __len__(self) -> int:
        return len(self.y)

    def part(self, where: slice) -> Batch:
        """Return some of its samples."""
        return Batch(**{name: values[where] for name, values in vars(self).items()})

    def parts(self, size: int | None, at_least: int = 1) -> Iterator[Batch]:
        """Yield all in order, in parts about equal: of at most `size` samples, but for `at_least`.

        With `size` None there is one.
        """
        n = len(self)
        count = 1 if size is None else max(1, min(-(-n // size), n // at_least))
        if count == 1:
            yield self
            return
        for i in range(count):
            yield self.part(slice(n * i // count, n * (i + 1) // count))

    def __getattr__(self, name: str) -> Any:
        if name in NEEDED:
            raise SupervisionError(undeclared(f"batch.{name}", name))
        raise AttributeError(
            f"A batch has no {name!r}; it has {', '.join(self.__dict__)}. "
            "lab.train(..., extra={name: tensor}) adds more"
        )


NEEDED = {"conflict": "conflict", "group": "groups", "bias": "groups"}
"""Label name -> the least `Supervision(train=...)` that shows it."""


def undeclared(asked: str, label: str) -> str:
    """Say what a method must declare to get the training split's `label`."""
    return (
        f"The method reads {asked} without declaring it. If it is meant to see these labels, "
        f'write `supervision = Supervision(train="{NEEDED[label]}")` in its class'
    )

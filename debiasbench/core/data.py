"""The interface for data: `Split`, `Task`, `Batch` and `Dataset`, and the definition of a group."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from debiasbench.common.errors import DataError, SupervisionError
from debiasbench.core.inputs import is_mapping, length, mapped, single, tensors
from debiasbench.core.model import Shape
from debiasbench.core.texts import Texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Generator, Tensor

    from debiasbench.common.space import Space
    from debiasbench.core.download import Download
    from debiasbench.core.inputs import Inputs
    from debiasbench.core.moment import Moment

    Augment = Callable[[Tensor, Generator], Tensor]

SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True, eq=False)
class Split:
    """Samples with their class and their bias attribute.

    `x`: (N, C, H, W) uint8 images, (N, ...) float32 for other data, or a mapping of named tensors
    (N, ...) that may also be int64, int32 or bool, such as token ids, or `Texts`, which a model's
    tokenizer reads. A mapping with the tensor `LENGTH` has sequences of different lengths: see
    `debiasbench.core.inputs`.
    `y`: (N,) int64 classes.
    `bias`: (N,) int64 values of the bias attribute, in [0, num_biases).
    """

    x: Inputs | Texts
    y: Tensor
    bias: Tensor
    num_biases: int

    def __len__(self) -> int:
        return len(self.y)

    @property
    def group(self) -> Tensor:
        """(N,) int64: index of the (class, bias) group, y * num_biases + bias."""
        return self.y * self.num_biases + self.bias


@dataclass(frozen=True, eq=False)
class Task:
    """Three splits, the names of their classes and bias values, and how to use them.

    `aligned`: (classes, biases) bool; which bias values are aligned with which class. All other
    combinations are bias-conflicting.
    `metric`, `select`: the accuracy and the selection rule that are usually reported for this data
    set; tables use them by default.
    `mean`, `std`: one value per channel. After images are scaled to [0, 1], `mean` is subtracted
    and the result is divided by `std`.
    `augment`: changes a training batch (B, *input) of float inputs in [0, 1], before
    normalisation; never called at evaluation.

    Raises `DataError` for inconsistent data, for a class without training samples, and for a single
    class or bias value: there must be two of which there are samples. A group without samples is
    allowed, in any split: metrics of the split leave it out.
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
                f"aligned has shape {tuple(self.aligned.shape)}, "
                f"must have shape (classes, biases) = {(len(self.classes), len(self.biases))}"
            )
        if "bool" not in str(self.aligned.dtype):
            raise DataError(f"aligned is {self.aligned.dtype}, must be bool")
        for split_name, split in self.splits().items():
            self._check(split_name, split)
        for name, values in (("mean", self.mean), ("std", self.std)):
            channels = 0 if values is None else single(self.train.x, name).shape[1]
            if values is not None and len(values) != channels:
                raise DataError(f"{name} has {len(values)} values for {channels} channels")
        if self.augment is not None:
            single(self.train.x, "augment")
        present = self.train.y.bincount(minlength=len(self.classes))  # (C,)
        if missing := [c for c, n in zip(self.classes, present.tolist(), strict=True) if n == 0]:
            raise DataError(f"Class {missing[0]!r} has no training samples: remove it or add data")
        self._check_several()

    def _check_several(self) -> None:
        """Raise `DataError` if all samples have one class or one bias value: nothing to compare."""
        counts = [s.bias.bincount(minlength=len(self.biases)) for s in self.splits().values()]
        found = {b for count in counts for b, n in enumerate(count.tolist()) if n}
        for kind, names, present in (
            ("class", self.classes, set(range(len(self.classes)))),
            ("bias value", self.biases, found),
        ):
            if len(present) < 2:
                raise DataError(
                    f"All samples have the same {kind}, {names[min(present)]!r}. "
                    "At least two are needed, or no group can differ from another"
                )

    def _check(self, name: str, split: Split) -> None:
        n = len(split.y)
        if n == 0:
            raise DataError(f"The {name} split is empty")
        inputs = {f"x[{key!r}]" if key else "x": x for key, x in tensors(split.x).items()}
        if isinstance(split.x, Texts):
            inputs = {"x": split.x.ends}
        if not inputs:
            raise DataError(f"The {name} split's x is an empty mapping")
        allowed = ["uint8", "float32"]
        if is_mapping(split.x) or isinstance(split.x, Texts):
            allowed = ["float32", "uint8", "int64", "int32", "bool"]
        types = {**dict.fromkeys(inputs, allowed), "y": ["int64"], "bias": ["int64"]}
        for field, values in {**inputs, "y": split.y, "bias": split.bias}.items():
            dtype = _dtype(values)
            if dtype not in types[field]:
                raise DataError(f"The {name} split's {field} is {dtype}, must be {types[field][0]}")
        for field, values in {**inputs, "bias": split.bias}.items():
            if len(values) != n:
                raise DataError(f"The {name} split has {len(values)} {field} and {n} y values")
        if self._kind(split) != self._kind(self.train):
            raise DataError(
                f"The {name} split's samples differ from the training samples in shape or type"
            )
        if split.num_biases != len(self.biases):
            raise DataError(
                f"The {name} split has num_biases={split.num_biases}, but the task has "
                f"{len(self.biases)} biases"
            )
        for field, values, names in (
            ("y", split.y, self.classes),
            ("bias", split.bias, self.biases),
        ):
            low, high = int(values.min()), int(values.max())
            if low < 0 or high >= len(names):
                raise DataError(
                    f"The {name} split has {field} values from {low} to {high}, "
                    f"must be in 0 to {len(names) - 1}"
                )

    @staticmethod
    def _kind(split: Split) -> dict[str, tuple[object, str]]:
        if isinstance(split.x, Texts):
            return {"texts": ((split.x.number,), "text")}
        return {key: (x.shape[1:], _dtype(x)) for key, x in tensors(split.x).items()}

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
        if isinstance(self.train.x, Texts):
            texts = {"texts": (self.train.x.number,)}
            return Shape(input=(), classes=len(self.classes), inputs=texts)
        shapes = {name: tuple(x.shape[1:]) for name, x in tensors(self.train.x).items()}
        if is_mapping(self.train.x):
            return Shape(input=(), classes=len(self.classes), inputs=shapes)
        return Shape(input=shapes[""], classes=len(self.classes))

    def conflict(self, split: Split) -> Tensor:
        """(N,) bool: which samples are bias-conflicting."""
        return ~self.aligned[split.y, split.bias]

    def group_counts(self, split: Split) -> Tensor:
        """(G,) int64: samples per group."""
        return split.group.bincount(minlength=self.num_groups)

    def fingerprint(self) -> str:
        """Return a hash of all samples, labels, names and normalisation values."""
        from hashlib import blake2b

        digest = blake2b(digest_size=16)
        for split in self.splits().values():
            for name, tensor in (*tensors(split.x).items(), ("", split.y), ("", split.bias)):
                digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
                digest.update(tensor.contiguous().numpy().data)
        rest = (self.classes, self.biases, self.aligned.tolist(), self.mean, self.std)
        digest.update(repr(rest).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Dataset(ABC):
    """A data set: a frozen dataclass whose fields are its options, with a method `load`.

    `training`: recommended training settings (fields of `Training`). `model`: recommended model.
    A run can choose others. `search`: what searches try for training settings on this data, such as
    `{"train.lr": log(1e-4, 1e-2)}`; see `debiasbench.core.settings.searched` for what they try
    otherwise. `source`, `licence`: the origin of the data and its licence.
    """

    citation: ClassVar[str] = ""
    source: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    training: ClassVar[Mapping[str, object]] = {}
    search: ClassVar[Mapping[str, Space]] = {}
    model: ClassVar[str] = "cnn"
    downloads: ClassVar[Sequence[Download]] = ()
    """Files for `debiasbench data prepare`; empty if data must be downloaded manually."""
    augmentation_options: ClassVar[Sequence[str]] = ()
    """Options that change `augmentation` and nothing that `load` returns, so that runs with other
    values of them share a cached task."""
    revision: ClassVar[int] = 1
    """Increase it when `load` returns other data than before, so that old caches are ignored. It is
    part of the spec, so that runs get another id, and tables mark the older records."""

    @abstractmethod
    def load(self, root: Path) -> Task:
        """Read or make the task; files are under `root`.

        Equal options must give equal data. Raises `DataError` that names a missing file, and where
        to put it.
        """

    @classmethod
    def implied(cls, root: Path) -> Mapping[str, object]:
        """Return options that the files under `root` decide where a user does not set them.

        They become part of the spec, so that other files are another spec.
        """
        return {}

    def sources(self, root: Path) -> Sequence[Path]:
        """Return the files and folders that `load` reads; a task made from files is cached.

        The cache is valid while names, sizes and modification times are the same. It does not
        store `Task.augment`: return that from `augmentation`.
        """
        return ()

    def attributes(self, root: Path) -> Mapping[str, Tensor]:
        """Return (N,) bool of the N test samples for each attribute that is known beside the bias.

        A sample may have several. `debiasbench results attributes` reports accuracies by them;
        nothing else reads them. Raises `DataError` as `load` does.
        """
        return {}

    def augmentation(self) -> Augment | None:
        """Return the augmentation of training batches, for tasks whose `augment` is None."""
        return None


class Batch:
    """B samples as an objective sees them: x, y, index, and the labels its method declares.

    `x`: (B, *input) float, or a mapping of named tensors. `y`: (B,) int64. `index`: (B,) int64
    positions in the split. `group`, `bias`: (B,) int64 and `conflict`: (B,) bool, only if the
    method declares them. The stage's `extra` tensors are further attributes.

    `step`, `epoch`: int64 scalars from 0, `progress`: a float32 scalar in [0, 1), the fraction of
    the stage's steps that came before. They are tensors on the device, so that
    `torch.where(batch.progress < 0.5, early, late)` works when the step is replayed. `beside`: the
    batch of the stage's second stream, only if it has one; without labels that the method does not
    declare.
    """

    x: Inputs
    y: Tensor
    index: Tensor
    group: Tensor
    bias: Tensor
    conflict: Tensor
    step: Tensor
    epoch: Tensor
    progress: Tensor
    beside: Batch

    def __init__(
        self,
        x: Inputs,
        y: Tensor | None = None,
        index: Tensor | None = None,
        *,
        moment: Moment | None = None,
        beside: Batch | None = None,
        **columns: Tensor,
    ) -> None:
        given = {"y": y, "index": index, "beside": beside}
        self.x = x
        self.__dict__.update({n: v for n, v in given.items() if v is not None}, **columns)
        self._moment = moment

    def __len__(self) -> int:
        return length(self.x)

    def part(self, samples: slice) -> Batch:
        """Return the samples of a slice; `beside` is left out."""
        parts: dict[str, Any] = {
            name: mapped(lambda values: values[samples], x)
            for name, x in vars(self).items()
            if name not in {"_moment", "beside", *MOMENT}
        }
        same = {name: value for name, value in vars(self).items() if name in MOMENT}
        return Batch(**parts, **same, moment=self._moment)

    def parts(self, size: int | None, at_least: int = 1) -> Iterator[Batch]:
        """Yield all samples in order, in nearly equal parts of at most `size` samples.

        A part has at least `at_least` samples, even if that is more than `size`. If `size` is
        None, there is one part.
        """
        n = len(self)
        count = 1 if size is None else max(1, min(-(-n // size), n // at_least))
        if count == 1:
            yield self
            return
        for i in range(count):
            yield self.part(slice(n * i // count, n * (i + 1) // count))

    def __getattr__(self, name: str) -> Any:
        if name in MOMENT:  # computed when it is used, so that other losses do not pay for it
            from debiasbench.core.moment import Moment

            return getattr(self._moment or Moment.begin(self.index.device), name)
        if name in NEEDED:
            raise SupervisionError(undeclared(f"batch.{name}", name))
        if name == "y":
            raise SupervisionError(
                "The batch has no classes: they are not part of the method's Supervision(...)"
            )
        if name == "beside":
            raise AttributeError(
                "This stage has no second stream of batches: use lab.train(..., beside=Beside(...))"
            )
        present = ", ".join(n for n in self.__dict__ if not n.startswith("_"))
        raise AttributeError(
            f"A batch has no {name!r}; it has {present}. "
            "Add tensors with lab.train(..., extra={name: tensor})"
        )


MOMENT = ("step", "epoch", "progress")
"""Attributes of a batch that all of its samples share."""


NEEDED = {"conflict": "conflict", "group": "groups", "bias": "groups"}
"""Label name -> the lowest level of `Supervision(train=...)` that includes it."""


def undeclared(access: str, label: str) -> str:
    """Return the error message for a method that reads a training `label` without declaring it."""
    return (
        f"The method reads {access} without declaring it. If it should see these labels, "
        f'write `supervision = Supervision(train="{NEEDED[label]}")` in its class'
    )


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")

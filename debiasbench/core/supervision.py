"""`Supervision`: the labels that a method declares to see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from debiasbench.common.errors import OptionError

TrainLabels = Literal["none", "conflict", "groups"]
ValUse = Literal["none", "inputs", "select", "fit"]


@dataclass(frozen=True)
class Supervision:
    """The labels that a method sees in addition to the class labels of the training split.

    `train`: "none"; "conflict", whether a sample is aligned or conflicting; or "groups", bias,
    group and conflict labels.
    `val`: "none", the method does not read validation data; "inputs", it may use the inputs of the
    validation split, but no label; "select", it may also read all its labels to choose between
    models; "fit", it may also train on it.
    """

    train: TrainLabels = "none"
    val: ValUse = "none"

    @property
    def sees_val_labels(self) -> bool:
        """Whether the method may read labels of the validation split."""
        return self.val in {"select", "fit"}

    def __post_init__(self) -> None:
        for name, allowed in (("train", get_args(TrainLabels)), ("val", get_args(ValUse))):
            if getattr(self, name) not in allowed:
                raise OptionError(
                    f"Supervision({name}={getattr(self, name)!r}): {name} must be one of "
                    f"{', '.join(map(repr, allowed))}"
                )

"""`Supervision`: the labels that a method declares to see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from debiasbench.common.errors import OptionError

TrainLabels = Literal["none", "conflict", "groups"]
ValUse = Literal["none", "select", "fit"]


@dataclass(frozen=True)
class Supervision:
    """The labels that a method sees in addition to the class labels of the training split.

    `train`: "none"; "conflict", whether a sample is aligned or conflicting; or "groups", bias,
    group and conflict labels.
    `val`: "none", the method does not read validation data; "select", it may read predictions
    and group labels of the validation split to choose between models; "fit", it may train on it.
    """

    train: TrainLabels = "none"
    val: ValUse = "none"

    def __post_init__(self) -> None:
        for name, allowed in (("train", get_args(TrainLabels)), ("val", get_args(ValUse))):
            if getattr(self, name) not in allowed:
                raise OptionError(
                    f"Supervision({name}={getattr(self, name)!r}): {name} must be one of "
                    f"{', '.join(map(repr, allowed))}"
                )

"""Which labels a method declares that it sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from debiasbench.common.errors import OptionError

TrainLabels = Literal["none", "conflict", "groups"]
ValUse = Literal["none", "select", "fit"]


@dataclass(frozen=True)
class Supervision:
    """The labels a method sees beside the class labels of the training split.

    `train`: "none"; "conflict", the one bit aligned/conflicting; or "groups", bias and group
    (and so the conflict bit as well).
    `val`: "none", the method never looks at validation data; "select", it may read predictions
    and group labels there to choose between models; "fit", it may train on them.
    """

    train: TrainLabels = "none"
    val: ValUse = "none"

    def __post_init__(self) -> None:
        for name, allowed in (("train", get_args(TrainLabels)), ("val", get_args(ValUse))):
            if getattr(self, name) not in allowed:
                raise OptionError(
                    f"Supervision({name}={getattr(self, name)!r}): must be one of {allowed}"
                )

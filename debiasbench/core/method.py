"""What a method is: options, a declaration of the labels it sees, and `fit`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from debiasbench.common.errors import OptionError

if TYPE_CHECKING:
    from torch import nn

    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained

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


@dataclass(frozen=True)
class Method(ABC):
    """A debiasing method: a frozen dataclass whose fields are its options, and a `fit`.

    The first line of the docstring describes the method in `debiasbench list`; `citation` says
    where it comes from.
    """

    citation: ClassVar[str] = ""

    @property
    def supervision(self) -> Supervision:
        """The labels this method sees; override with `supervision = Supervision(...)`."""
        return Supervision()

    @abstractmethod
    def fit(self, lab: Lab) -> Trained | nn.Module:
        """Train a classifier with what `lab` offers.

        Returns what `lab.train` returned, and then every selection rule chooses among that
        stage's epochs; or a network or objective, which all rules take as it is.
        """

"""What a method is: options, a declaration of the labels it sees, and `fit`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from debiasbench.core.supervision import Supervision

if TYPE_CHECKING:
    from torch import nn

    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


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

"""`Method`: options, a declaration of the labels that the method sees, and `fit`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from debiasbench.core.supervision import Supervision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


@dataclass(frozen=True)
class Method(ABC):
    """A debiasing method: a frozen dataclass whose fields are its options, with a method `fit`.

    `debiasbench list` shows the first line of the docstring. `citation`: the paper to cite.
    `presets`: the authors' settings by data set, with names as for `--set`, such as
    `{"waterbirds": {"q": 0.8, "train.lr": 1e-3}}`; `--preset waterbirds` uses them. `revision`:
    increase it when the same options give other results than before; it is part of the spec, so
    that runs get another id, and tables mark the older records.
    """

    citation: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    revision: ClassVar[int] = 1

    @property
    def supervision(self) -> Supervision:
        """The labels this method sees; override with `supervision = Supervision(...)`."""
        return Supervision()

    @abstractmethod
    def fit(self, lab: Lab) -> Trained | nn.Module:
        """Train a classifier and return it.

        Return the result of `lab.train`, and each selection rule selects one of its epochs. Or
        return a network or an objective, and all selection rules use it unchanged.
        """

"""What is to be run: `Spec`, plain data that JSON can hold, and its id."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from debiasbench.common.canonical import Strict, digest


@dataclass(frozen=True)
class Choice(Strict):
    """A registered name and all its options, defaults written out."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec(Strict):
    """Everything that decides a run's result; its hash is the run's id."""

    dataset: Choice
    model: Choice
    method: Choice
    training: dict[str, Any]
    seed: int
    sparse: Choice | None = None  # what is added to every stage of the method

    @property
    def id(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the canonical JSON; without what is None."""
        decides = {name: value for name, value in asdict(self).items() if value is not None}
        return digest(decides)[:16]

    @property
    def stem(self) -> str:
        """Return the record's file name, without ending; never a path."""
        names = "-".join(c.name for c in (self.dataset, self.method, self.sparse) if c)
        return f"{re.sub('[^A-Za-z0-9_.-]', '_', names)}-{self.seed}-{self.id}"

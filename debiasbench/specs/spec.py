"""A spec: everything that decides the result of a run, as plain data, and its id."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from typing import Any

from debiasbench.common.canonical import Strict, digest
from debiasbench.common.errors import OptionError


@dataclass(frozen=True)
class Choice(Strict):
    """A registered name and all its options, except for those at their `absent` value."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec(Strict):
    """Everything that decides the result of a run; its hash is the id of the run."""

    dataset: Choice
    model: Choice
    method: Choice
    training: dict[str, Any]
    seed: int
    sparse: Choice | None = None  # the sparsifier of every stage of the method
    # "rules" or part of the spec -> revision of its code, only those above 1
    revisions: dict[str, int] | None = None

    @property
    def unresolved(self) -> list[str]:
        """Names of settings that still depend on the machine; see `Session.resolve`."""
        return [f"train.{name}" for name, value in self.training.items() if value == "auto"]

    def resolved_as(self, other: Spec) -> Spec:
        """Return this spec with the settings of `other` for those that depend on the machine."""
        left = {name: value for name, value in self.training.items() if value != "auto"}
        found = {name: other.training[name] for name in self.training if name in other.training}
        return replace(self, training={**found, **left})

    @property
    def id(self) -> str:
        """Return 16 hexadecimal digits of the SHA-256 of the canonical JSON, without None values.

        Raises `OptionError` for a spec whose training holds "auto": its id would stand for
        different computations on different machines.
        """
        if unresolved := self.unresolved:
            raise OptionError(
                f"This spec is not resolved: {' and '.join(unresolved)} "
                f"{'is' if len(unresolved) == 1 else 'are'} auto. Set a value that does not depend "
                "on the machine"
            )
        decides = {
            name: {"name": value.name, "options": value.options}
            if isinstance(value, Choice)
            else value
            for name, value in ((f.name, getattr(self, f.name)) for f in fields(self))
            if value is not None
        }
        return digest(decides)[:16]

    @property
    def stem(self) -> str:
        """Return the file name of the record, without folder and ending."""
        return f"{self.group}-{self.id}"

    @property
    def group(self) -> str:
        """Return what the file names of this spec and of similar ones have before their ids."""
        names = "-".join(c.name for c in (self.dataset, self.method, self.sparse) if c)
        return f"{re.sub('[^A-Za-z0-9_.-]', '_', names)}-{self.seed}"

"""`Listening`: a trainer that collects the stages of a method, and trains none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.training.untrained import untrained

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.core.stage import Stage, Trained


class Listening:
    """A trainer that collects the stages of a method, and trains none."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        """Return the objectives untrained; keep copies, since a method may change them later."""
        self.stages += [stage.copied() for stage in stages]
        return [untrained(stage) for stage in stages]

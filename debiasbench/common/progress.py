"""What a long computation tells whoever watches it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What the loop tells whoever watches it."""

    def start(self, stage: str, steps: int) -> None:
        """A stage of `steps` steps begins."""

    def advance(self) -> None:
        """A step is done."""

    def finish(self) -> None:
        """The stage is over."""


class Silent:
    """Nobody watches."""

    def start(self, stage: str, steps: int) -> None:
        """Do nothing."""

    def advance(self) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""

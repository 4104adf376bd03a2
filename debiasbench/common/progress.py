"""`Progress`: the object to which a long computation reports its progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of stages; a progress bar, for example."""

    def start(self, stage: str, steps: int) -> None:
        """Begin a stage of `steps` steps."""

    def advance(self) -> None:
        """Count one finished step."""

    def finish(self) -> None:
        """End the stage."""


class Silent:
    """A `Progress` that shows nothing."""

    def start(self, stage: str, steps: int) -> None:
        """Do nothing."""

    def advance(self) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""

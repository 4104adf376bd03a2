"""What a download reports to a progress bar."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of downloads, in bytes."""

    def start(self, label: str, total: int | None) -> None:
        """Begin a transfer of `total` bytes, or of an unknown number if None."""

    def advance(self, count: int) -> None:
        """Add `count` bytes; those kept from an earlier attempt are added at once."""

    def finish(self) -> None:
        """End the transfer, whether it succeeded or failed."""


class Silent:
    """Shows nothing."""

    def start(self, label: str, total: int | None) -> None:
        """Do nothing."""

    def advance(self, count: int) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""

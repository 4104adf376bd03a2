"""`Progress`: the object to which a long computation reports its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self


class Progress:
    """Receives the progress of runs, stages and downloads, and ignores it.

    Subclasses show what they override, for example as a progress bar. They are used as context
    managers around the computation.
    """

    def begin(self, title: str, metric: str | None = None) -> None:
        """Begin a run, such as "rest on digits".

        `metric`: the most interesting value of its epochs, such as "val_unbiased".
        """

    def start(self, name: str, total: int | None) -> None:
        """Begin a stage of `total` steps or a transfer of `total` bytes; None if unknown."""

    def advance(self, count: int = 1) -> None:
        """Count finished steps or bytes."""

    def epoch(self, epoch: int, epochs: int, values: Mapping[str, float]) -> None:
        """End an epoch, numbered from 1.

        `values`: the mean training loss as "loss"; if validation is read, also "val_loss" and the
        accuracies in [0, 1] as "val_unbiased" and so on.
        """

    def finish(self) -> None:
        """End the stage or transfer."""

    def found(self, name: str, total: int, curves: Mapping[str, Sequence[float]]) -> None:
        """Take note of a stage of `total` steps, of which all or some were trained before.

        `curves`: the values of its epochs so far, with the names that `epoch` gets. A stage that is
        trained further has been begun with `start`; one that is complete is not.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

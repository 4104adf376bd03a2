"""Progress bars of runs and downloads on stderr; shown only if it is a terminal."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from rich.progress import ProgressColumn, TaskID


class _Display:
    """One progress bar after the other on stderr."""

    columns: tuple[Callable[[], ProgressColumn], ...]

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            *(column() for column in self.columns),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def start(self, title: str, total: int | None) -> None:
        """Begin a new bar."""
        self._task = self._progress.add_task(title, total=total)

    def advance(self, count: int = 1) -> None:
        """Advance the current bar."""
        if self._task is not None:
            self._progress.advance(self._task, count)

    def finish(self) -> None:
        """Stop changing the current bar; it stays visible."""
        self._task = None


class Bar(_Display):
    """Counts training steps."""

    columns = (MofNCompleteColumn, partial(TextColumn, "steps"))


class Turns(_Display):
    """Counts the measurements of a benchmark."""

    columns = (MofNCompleteColumn, partial(TextColumn, "measurements"))


class Bytes(_Display):
    """Counts downloaded bytes."""

    columns = (DownloadColumn, TransferSpeedColumn)

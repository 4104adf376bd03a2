"""Show progress on stderr: as bars on a terminal, otherwise as lines of text."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Column

from debiasbench.common.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from rich.progress import ProgressColumn, TaskID

Unit = Literal["steps", "measurements", "images", "bytes", "files"]

MINUTE = 60.0  # seconds after which a new line is written, even within an epoch


def display(unit: Unit = "steps", *, label: str = "", quiet: bool = False) -> Progress:
    """Return a display of progress for stderr: a bar on a terminal or in a notebook, else lines.

    `label`: the beginning of each line, such as the number of the run in a sweep. `quiet`: show
    nothing.
    """
    if quiet:
        return Progress()
    console = Console(stderr=True)
    return Bar(unit, console) if is_interactive(console) else Lines(unit, label)


def is_interactive(console: Console | None = None) -> bool:
    """Return whether stderr is a terminal, or the code runs in a notebook."""
    console = console or Console(stderr=True)
    return console.is_terminal or console.is_jupyter


class Bar(Progress):
    """A progress bar for each stage, one below the other, with the values of the last epoch."""

    def __init__(self, unit: Unit = "steps", console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        columns: list[ProgressColumn] = [MofNCompleteColumn(), TextColumn(unit)]
        if unit == "bytes":
            columns = [DownloadColumn(), TransferSpeedColumn()]
        self._bars = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            *columns,
            TimeRemainingColumn(),
            TextColumn(
                "{task.fields[values]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis"),
            ),
            console=console,
            disable=not is_interactive(console),
        )
        self._task: TaskID | None = None
        self._title = ""
        self._metric: str | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, title: str, metric: str | None = None) -> None:
        """Show the title before the name of each stage."""
        self._title, self._metric = f"{title}: ", metric

    def start(self, name: str, total: int | None) -> None:
        """Begin a new bar."""
        self._task = self._bars.add_task(self._title + name, total=total, values="")

    def advance(self, count: int = 1) -> None:
        """Advance the current bar."""
        if self._task is not None:
            self._bars.advance(self._task, count)

    def epoch(self, epoch: int, epochs: int, values: Mapping[str, float]) -> None:
        """Show the loss and the metric beside the bar."""
        if self._task is not None:
            self._bars.update(self._task, values=_summary(values, self._metric))

    def finish(self) -> None:
        """Stop changing the current bar; it stays visible."""
        self._task = None


class Lines(Progress):
    """A line at the start of each stage, after each epoch, and at least every minute.

    `write` and `clock` replace stderr and the time in tests.
    """

    def __init__(
        self,
        unit: Unit = "steps",
        label: str = "",
        *,
        write: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._unit, self._label = unit, f"{label}  " if label else ""
        self._write, self._clock = write or _to_stderr, clock
        self._title = ""
        self._metric: str | None = None
        self._name, self._done = "", 0
        self._total: int | None = None
        self._begun = self._written = clock()

    def begin(self, title: str, metric: str | None = None) -> None:
        """Write the title at the beginning of each line."""
        self._title, self._metric = f"{title}, ", metric

    def start(self, name: str, total: int | None) -> None:
        """Write a line with the number of steps."""
        self._name, self._done, self._total = name, 0, total
        self._begun = self._clock()
        self._line("begins" if total is None else f"{self._count(total)} {self._noun}".strip())

    def advance(self, count: int = 1) -> None:
        """Write a line if a minute has passed since the last one."""
        self._done += count
        if self._clock() - self._written >= MINUTE:
            self._line(self._position())

    def epoch(self, epoch: int, epochs: int, values: Mapping[str, float]) -> None:
        """Write a line with the loss and the metric."""
        self._line(
            f"epoch {epoch} of {epochs}, {self._position()}, {_summary(values, self._metric)}"
        )

    def _position(self) -> str:
        done = self._count(self._done)
        position = done if self._total is None else f"{done} of {self._count(self._total)}"
        seconds = f"{self._clock() - self._begun:.0f} s"
        return f"{position} {self._noun}, {seconds}" if self._noun else f"{position}, {seconds}"

    @property
    def _noun(self) -> str:
        return "" if self._unit == "bytes" else self._unit

    def _count(self, number: int) -> str:
        return f"{number / 1e6:,.1f} MB" if self._unit == "bytes" else f"{number:,}"

    def _line(self, text: str) -> None:
        self._written = self._clock()
        self._write(f"{self._label}{self._title}{self._name}: {text}")


def _summary(values: Mapping[str, float], metric: str | None) -> str:
    """Return such as "loss 0.41, val unbiased 71.2 %"."""
    parts = [f"loss {values['loss']:.3g}"]
    if metric is not None and metric in values:
        parts.append(f"{metric.replace('_', ' ')} {100 * values[metric]:.1f} %")
    return ", ".join(parts)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

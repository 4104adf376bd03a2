"""A figure as data: axes and marks in the units of their numbers, before anything is drawn.

Accuracies are fractions, as everywhere; only the text of ticks and sentences is in percent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

FEW = 20  # test samples of a group, below which its square is hatched

Look = Literal["full", "hollow", "faint"]


@dataclass(frozen=True)
class Tick:
    """A value of an axis and the text beside it."""

    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`, both within the scale; a log axis is above 0."""

    label: str
    low: float
    high: float
    ticks: tuple[Tick, ...] = ()
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value is, as a part of the axis: 0 at `low`, 1 at `high`."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Point:
    """A point with the interval of its y, NaN if there is none. `text` says its numbers."""

    x: float
    y: float
    low: float = math.nan
    high: float = math.nan
    text: str = ""
    name: str = ""  # written beside it; empty within a line, which has a name of its own


@dataclass(frozen=True)
class Line:
    """Points from left to right, with a band through their intervals; the name is at its end."""

    name: str
    points: tuple[Point, ...]
    series: int  # its colour, dash and marker

    @property
    def text(self) -> str:
        """The numbers of all points."""
        return " ".join(point.text for point in self.points)


@dataclass(frozen=True)
class Level:
    """A horizontal line with a band, for what does not depend on x; the name is at its end.

    Without a series and a name it is in the background.
    """

    name: str
    y: float
    low: float
    high: float
    series: int | None
    text: str = ""
    band: bool = True  # whether the band is drawn


@dataclass(frozen=True)
class Dots:
    """Points that no line joins, each with its name and a vertical bar for its interval."""

    points: tuple[Point, ...]
    series: int
    look: Look = "full"

    @property
    def text(self) -> str:
        """The numbers of all points."""
        return " ".join(point.text for point in self.points)


@dataclass(frozen=True)
class Steps:
    """A staircase through corners (x, y) from left to right: y holds until the next x."""

    corners: tuple[tuple[float, float], ...]
    series: int
    text: str = ""


@dataclass(frozen=True)
class Bar:
    """A horizontal bar from `low` to `high` at height `y`, with a dot; the y axis names it."""

    y: float
    at: float
    low: float
    high: float
    strong: bool
    text: str = ""


@dataclass(frozen=True)
class Heading:
    """Words above the marks that are below `y`."""

    y: float
    text: str


@dataclass(frozen=True)
class Square:
    """A square of a heat map around (x, y): a fraction and the number of its samples.

    `value` is NaN if there is none.
    """

    x: float
    y: float
    value: float
    samples: int
    aligned: bool = False  # its number is bold
    text: str = ""

    @property
    def few(self) -> bool:
        """Whether it is hatched, because its value says little."""
        return 0 < self.samples < FEW

    @property
    def counted(self) -> str:
        """The number of samples, as it is written."""
        return f"n={self.samples:,}"


Mark = Line | Level | Dots | Steps | Bar | Heading | Square


@dataclass(frozen=True)
class Key:
    """What a colour or the look of a dot means."""

    text: str
    series: int | None = None  # None: no colour in particular
    look: Look | Literal["hatch"] = "full"


@dataclass(frozen=True)
class Figure:
    """Marks between two axes. `width`, `height`: of the area between the axes, in pixels.

    `notes`: sentences for the caption, which the picture does not show; the first says what is
    drawn.
    """

    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    notes: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    width: float = 340.0
    height: float = 240.0

    @property
    def caption(self) -> str:
        """The title and all notes."""
        return " ".join([f"{self.title}.", *self.notes])

    @property
    def description(self) -> str:
        """Everything that the picture shows, in words, for readers who cannot see it."""
        return " ".join([f"{self.title}.", *(mark.text for mark in self.marks if mark.text)])

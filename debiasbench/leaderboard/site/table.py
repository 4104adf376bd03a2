"""Tables as pages show them: cells with a value to sort by, in sections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup


@dataclass(frozen=True)
class Link:
    """Words and where they lead; without an address they are plain text."""

    text: str
    address: str = ""
    title: str = ""


@dataclass(frozen=True)
class Cell:
    """What a cell shows: a text, a picture, and links, in this order.

    `value`: what the column is sorted by; NaN is last.
    """

    text: str = ""
    value: float = math.nan
    title: str = ""
    picture: Markup = field(default_factory=Markup)
    links: Sequence[Link] = ()
    strong: bool = False

    @property
    def key(self) -> str:
        """The value as text, empty for NaN."""
        return "" if math.isnan(self.value) else f"{self.value:.7g}"


@dataclass(frozen=True)
class Heading:
    """The head of a column.

    `first`: the direction of the first sorting, -1 for the largest first; 0 for a column that
    cannot be sorted. `kind`: a class of the style.
    """

    name: str
    text: str
    first: int = 0
    title: str = ""
    kind: str = ""
    picture: Markup = field(default_factory=Markup)


@dataclass(frozen=True)
class Line:
    """A row: its name, the badges beside it, and its cells.

    `more`: the rest of the name, which may be long.
    """

    name: Link
    cells: Sequence[Cell]
    badges: Sequence[Link] = ()  # without addresses
    strong: bool = False
    more: str = ""


@dataclass(frozen=True)
class Section:
    """Rows that may be compared; they are sorted among themselves."""

    title: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Table:
    """A table with a name that is unique in its page; the first heading is that of the rows."""

    name: str
    caption: str
    headings: Sequence[Heading]
    sections: Sequence[Section]

"""A table as cells of text, before any markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """Text in a table; strong text is that of the best rows."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Grid:
    """A heading, a table with sections, and the remarks under it.

    `sections` names the section of each row; rows of the same section are neighbours. The first
    remark describes the numbers.
    """

    heading: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    sections: Sequence[str]
    remarks: Sequence[str]

    def begins_section(self, row: int) -> bool:
        """Say whether a row is the first of its section."""
        return row == 0 or self.sections[row] != self.sections[row - 1]

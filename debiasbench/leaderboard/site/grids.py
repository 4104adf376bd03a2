"""Tables that other modules lay out as text, such as those over data sets, for a page."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from debiasbench.common.errors import RecordError
from debiasbench.leaderboard import across_text, protocol_text
from debiasbench.leaderboard.across import across
from debiasbench.leaderboard.protocol import protocols
from debiasbench.leaderboard.site.table import Cell, Heading, Line, Link, Section, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from debiasbench.leaderboard.gather import Gathered
    from debiasbench.leaderboard.grid import Grid
    from debiasbench.records.record import Record

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(?![\d–])")  # at the beginning of a cell


class MethodLinks(Protocol):
    """Knows the address of the page of a method."""

    def method(self, name: str) -> str:
        """Return the address of the page of a method."""


@dataclass(frozen=True)
class Noted:
    """A table with the sentences that explain it."""

    table: Table
    remarks: Sequence[str]


def over_data_sets(
    gathered: Gathered, records: Sequence[Record], asked: Mapping[str, str | None]
) -> list[Grid]:
    """Return the tables over all data sets; none if there are fewer than two."""
    try:
        made = across(
            records,
            metric=asked["metric"],
            select=asked["select"],
            baseline=asked["baseline"],
            **gathered.evidence,
        )
    except RecordError:
        return []
    return across_text.grids(made)


def of_rules(
    gathered: Gathered, records: Sequence[Record], asked: Mapping[str, str | None]
) -> dict[str, list[Grid]]:
    """Return the tables that compare selection rules, by the id of a record in each of them."""
    try:
        made = protocols(
            records,
            metric=asked["metric"],
            select=asked["select"],
            **gathered.evidence,
        )
    except RecordError:
        return {}
    return {one.own.rows[0].records[0]: protocol_text.grids(one) for one in made}


def noted(
    grids: Sequence[Grid], name: str, methods: Mapping[str, object], links: MethodLinks
) -> list[Noted]:
    """Make tables of grids; `name` begins their names. Names of `methods` become links."""
    return [
        Noted(_table(grid, f"{name}-{number}", methods, links), grid.remarks)
        for number, grid in enumerate(grids)
    ]


def _table(grid: Grid, name: str, methods: Mapping[str, object], links: MethodLinks) -> Table:
    sections: dict[str, list[Line]] = {}
    for row, section in zip(grid.rows, grid.sections, strict=True):
        first, *others = row
        method, _, setting = first.text.partition(" (")
        known = method in methods
        line = Line(
            Link(method, links.method(method)) if known else Link(first.text),
            [Cell(cell.text, _value(cell.text), strong=cell.strong) for cell in others],
            strong=first.strong,
            more=setting.removesuffix(")") if known else "",
        )
        sections.setdefault(section, []).append(line)
    head, *rest = grid.header
    return Table(
        name=name,
        caption=grid.heading,
        headings=[
            Heading("name", head, 1),
            *(Heading(f"c{i}", text, -1) for i, text in enumerate(rest)),
        ],
        sections=[Section(title, lines) for title, lines in sections.items()],
    )


def _value(text: str) -> float:
    """Return the number that a text begins with, NaN without one."""
    found = _NUMBER.match(text)
    return float(found[0]) if found else math.nan

"""The first page: what is compared, and every method on every data set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from debiasbench.leaderboard import cells
from debiasbench.leaderboard.notes import listed
from debiasbench.leaderboard.site.table import Cell, Heading, Line, Link, Section, Table

if TYPE_CHECKING:
    from debiasbench.leaderboard.row import Level, Row
    from debiasbench.leaderboard.site.content import Content, Place
    from debiasbench.leaderboard.site.links import Links


def place_table(content: Content, links: Links) -> Table:
    """Lay out the data sets and networks, with the best rows of each section."""
    return Table(
        name="boards",
        caption="Data sets and networks",
        headings=[
            Heading("board", "data set · network", 1),
            Heading("metric", "metric %"),
            Heading("rule", "selection rule"),
            Heading("rows", "rows", -1),
            Heading("seeds", "seeds"),
            Heading("records", "records", -1),
            Heading("best", "best of each section, or not distinguishable from it", kind="text"),
        ],
        sections=[Section("", [_place_line(place, links) for place in content.places])],
    )


def _place_line(place: Place, links: Links) -> Line:
    board = place.board
    seeds = {seed for row in board.rows for seed in row.values}
    marked = [row for row in board.rows if row.marked]
    best = [
        Link(f"{row.method} {cells.percent(row.mean)}", links.method(row.method), row.setting)
        for row in marked
    ]
    few = best if len(best) <= 6 else [*best[:6], Link(f"and {len(best) - 6} more")]
    return Line(
        Link(place.title, links.board(place), place.full_title),
        [
            Cell(cells.words(board.metric)),
            Cell(board.rule),
            Cell(f"{len(board.rows)}", len(board.rows)),
            Cell(listed(seeds) if seeds else "—"),
            Cell(f"{len(place.records)}", len(place.records)),
            Cell(links=few) if few else Cell("—", title="no row can be compared with another"),
        ],
    )


def method_table(content: Content, links: Links) -> Table:
    """Lay out methods by data sets: accuracies, or points above a baseline where there is one."""
    named: dict[tuple[Level, str], dict[int, Row]] = {}
    for number, place in enumerate(content.places):
        for row in place.board.rows:
            named.setdefault((row.level, row.name), {})[number] = row
    levels = sorted({level for level, _ in named})
    baseline = next((p.board.baseline for p in content.places if p.board.baseline), None)
    what = f"points above {baseline}" if baseline else "accuracy"
    alone = f"values with % are accuracies without a difference to {baseline}; " if baseline else ""
    return Table(
        name="methods",
        caption=f"Methods on all data: {what} with its 95 % interval, by each data set's own "
        f"metric and selection rule; {alone}— is not run, ✗ is failed",
        headings=[
            Heading("method", "method", 1),
            *(
                Heading(f"b{i}", place.title, -1, cells.words(place.board.metric))
                for i, place in enumerate(content.places)
            ),
        ],
        sections=[
            Section(
                cells.section(
                    next(iter(next(r for k, r in named.items() if k[0] == level).values()))
                ),
                [
                    _method_line(content, rows, links, unit=" %" if baseline else "")
                    for (of, _), rows in sorted(named.items(), key=lambda item: item[0])
                    if of == level
                ],
            )
            for level in levels
        ],
    )


def _method_line(content: Content, rows: dict[int, Row], links: Links, *, unit: str) -> Line:
    first = next(iter(rows.values()))
    return Line(
        Link(first.method, links.method(first.method), content.known_of(first).summary),
        [
            _method_cell(place, rows.get(number), unit)
            for number, place in enumerate(content.places)
        ],
        more=first.setting,
    )


def _method_cell(place: Place, row: Row | None, unit: str) -> Cell:
    if row is None:
        return Cell("—")
    board = place.board
    if not row.values:
        reasons = dict.fromkeys([*row.failed.values(), *row.missing.values()])
        return Cell("✗" if row.failed else "—", title="; ".join(reasons))
    failed = f" ✗ {len(row.failed)}" if row.failed else ""
    own = f"{cells.percent(row.mean)} %, 95 % interval {cells.bounds(row)} %"
    if board.baseline and row.name != board.baseline and not math.isnan(row.difference.mean):
        text = f"{cells.difference(row.difference)}{failed}"
        return Cell(text, row.difference.mean, own, strong=row.marked)
    return Cell(
        f"{cells.percent(row.mean)}{unit} ({cells.bounds(row)}){failed}",
        row.mean,
        own,
        strong=row.marked,
    )

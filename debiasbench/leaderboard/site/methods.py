"""The page of a method: its rows on all data, and differences to others with the same labels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from debiasbench.leaderboard import cells
from debiasbench.leaderboard.columns import COLUMNS, accuracy
from debiasbench.leaderboard.comparison import RANKED
from debiasbench.leaderboard.frame import plain
from debiasbench.leaderboard.row import SIDE_METRICS
from debiasbench.leaderboard.site.rows import badges, records
from debiasbench.leaderboard.site.table import Cell, Heading, Line, Link, Section, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.row import Difference, Row
    from debiasbench.leaderboard.site.content import Content, Place
    from debiasbench.leaderboard.site.links import Links
    from debiasbench.records.trust import Trust


def method_table(content: Content, rows: Sequence[tuple[Place, Row]], links: Links) -> Table:
    """Lay out all rows of a method, in sections by data set and network."""
    by_place: dict[Place, list[Row]] = {}
    for place, row in rows:
        by_place.setdefault(place, []).append(row)
    return Table(
        name="results",
        caption="Results on all data, each with its own metric and selection rule",
        headings=[
            Heading("setting", "setting", 1),
            Heading("metric", "metric"),
            Heading("accuracy", "accuracy %", -1, "mean ± standard deviation"),
            Heading("interval", "95 % interval", -1),
            Heading("rank", "rank", 1, "within its section"),
            Heading("difference", "minus the baseline, points", -1),
            *(Heading(name, f"{cells.words(name)} %", -1) for name in SIDE_METRICS),
            Heading("density", "density", 1),
            Heading("records", "records, by seed"),
        ],
        sections=[
            Section(place.title, [_line(content, place, row, links) for row in of])
            for place, of in by_place.items()
        ],
    )


def _line(content: Content, place: Place, row: Row, links: Links) -> Line:
    board = place.board
    return Line(
        Link(row.setting or "as it is", links.board(place), cells.section(row)),
        [
            Cell(f"{cells.words(board.metric)}, {board.rule}"),
            Cell(COLUMNS["accuracy"].text(row, board), row.mean, strong=row.marked),
            Cell(cells.bounds(row), row.interval.low),
            Cell(cells.rank(row), sum(row.rank[:2]) / 2 if row.rank else math.nan),
            Cell(cells.difference(row.difference), row.difference.mean),
            *(
                Cell(
                    cells.flagged(
                        cells.percent(accuracy(row, board, name)), name, board.incomplete, row
                    ),
                    accuracy(row, board, name),
                )
                for name in SIDE_METRICS
            ),
            Cell(COLUMNS["density"].text(row, board), row.costs["density"]),
            Cell(links=records(content, row, links)),
        ],
        badges(content, row),
        row.marked,
    )


def sees(rows: Sequence[tuple[Place, Row]]) -> list[str]:
    """Say which labels the rows see, each once; selection rules count."""
    return list(
        dict.fromkeys(
            f"{cells.section(row)} (with selection by {place.board.rule})" for place, row in rows
        )
    )


def option_values(rows: Sequence[tuple[Place, Row]]) -> list[tuple[str, str]]:
    """Return the names of options and training settings, each with all its values."""
    found: dict[str, dict[str, None]] = {}
    for _, row in rows:
        values = row.options | {f"train.{name}": value for name, value in row.training.items()}
        for name, value in values.items():
            found.setdefault(name, {})[plain(value)] = None
    own = sorted(name for name in found if not name.startswith("train."))
    shared = sorted(name for name in found if name.startswith("train."))
    return [(name, ", ".join(found[name])) for name in [*own, *shared]]


def makers(rows: Sequence[tuple[Place, Row]]) -> list[str]:
    """Return the distributions that the method came from, with their versions."""
    return sorted({row.made_by for _, row in rows if row.made_by})


def submissions(content: Content, rows: Sequence[tuple[Place, Row]]) -> list[Trust]:
    """Return who submitted records of the method from which source code, each once."""
    trust = content.gathered.standing.trust
    made = [trust[name] for _, row in rows for name in row.records if name in trust]
    return list({(one.who, one.source, one.source_sha256): one for one in made if one.who}.values())


def pair_tables(rows: Sequence[tuple[Place, Row]], links: Links) -> list[Table]:
    """Compare each row with the others of its section, seed by seed and sample by sample."""
    made: list[Table] = []
    for place, row in rows:
        board = place.board
        if board.comparison is None:
            continue
        others = [
            other
            for other in board.rows
            if other.level == row.level and other is not row and not other.stale
        ]
        if row.stale or not others or len(others) >= RANKED:
            continue
        differences = board.comparison.differences([(row, other) for other in others])
        lines = [
            _pair(board, row, other, difference, links)
            for other, difference in zip(others, differences, strict=True)
            if not math.isnan(difference.mean)
        ]
        if lines:
            made.append(_pair_table(len(made), place, row, lines))
    return made


def _pair_table(number: int, place: Place, row: Row, lines: list[Line]) -> Table:
    return Table(
        name=f"pairs-{number}",
        caption=f"{row.name} minus others of its section on {place.title}, "
        f"{cells.words(place.board.metric)} accuracy, {cells.epoch(place.board.rule)}",
        headings=[
            Heading("other", "other method", 1),
            Heading("difference", "difference, points (95 % interval)", -1),
            Heading("p", "p", 1, "of this pair alone"),
            Heading("better", "only this one right", -1, "test samples, summed over seeds"),
            Heading("worse", "only the other right", -1, "test samples, summed over seeds"),
            Heading("better_conflict", "of them conflicting", -1),
            Heading("worse_conflict", "of them conflicting", -1),
        ],
        sections=[Section(cells.section(row), lines)],
    )


def _pair(board: Board, row: Row, other: Row, found: Difference, links: Links) -> Line:
    counts = _discordant(board, row, other)
    return Line(
        Link(other.method, links.method(other.method)),
        [
            Cell(cells.difference(found), found.mean, strong=found.low > 0 or found.high < 0),
            Cell("—" if math.isnan(found.p) else _p(found.p), found.p),
            *(
                [Cell(f"{count:,}", count) for count in counts]
                if counts
                else [Cell("—") for _ in range(4)]
            ),
        ],
        more=other.setting,
    )


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def _discordant(board: Board, row: Row, other: Row) -> list[int]:
    """Count the samples that only one of two rows classified correctly, over common seeds.

    In the order of the table: only the first, only the second, and of these the conflicting ones.
    Empty without predictions.
    """
    comparison = board.comparison
    seeds = sorted(row.tables.keys() & other.tables.keys())
    if comparison is None or comparison.samples is None or not seeds:
        return []
    samples = comparison.samples
    conflicting = ~samples.counts.aligned.ravel()[np.asarray(samples.group)[samples.order]]
    better = sum(row.tables[s] & ~other.tables[s] for s in seeds)
    worse = sum(other.tables[s] & ~row.tables[s] for s in seeds)
    return [
        int(np.sum(better)),
        int(np.sum(worse)),
        int(np.sum(better * conflicting)),
        int(np.sum(worse * conflicting)),
    ]

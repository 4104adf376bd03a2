"""The dependence on the protocol as tables of text, and as CSV and JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from debiasbench.leaderboard import cells, flat
from debiasbench.leaderboard.grid import Cell, Grid
from debiasbench.leaderboard.protocol import LAST
from debiasbench.leaderboard.render import heading
from debiasbench.leaderboard.row import DEFAULT, LEVELS, Difference
from debiasbench.leaderboard.tuning import tuning_name
from debiasbench.records.selection import USES_GROUPS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from debiasbench.leaderboard.protocol import Agreement, Line, Premium, Protocol
    from debiasbench.leaderboard.row import Level

LISTED = 4  # names of the best that a cell holds


def grids(protocol: Protocol) -> list[Grid]:
    """Lay out points and ranks, gaps, agreement of the rules, and the value of labels."""
    made = [_points(protocol)]
    if any(line.gaps for line in protocol.lines):
        made.append(_gaps(protocol))
    if protocol.agreements:
        made.append(_agreements(protocol))
    if protocol.premiums:
        made.append(_premiums(protocol))
    return made


def _title(protocol: Protocol, what: str) -> str:
    board = protocol.own
    return heading(f"{board.dataset} · {board.model} · {cells.words(board.metric)} %: {what}")


def seen(level: Level) -> str:
    """Write which bias labels a method itself reads."""
    train, val = (LEVELS[number] for number in level[:2])
    seen = f"{cells.SEEN['train'][train]}, {cells.SEEN['val'][val]}"
    return seen if level[2] == DEFAULT else f"{seen}, {tuning_name(level[2])}"


def _points(protocol: Protocol) -> Grid:
    board = protocol.own
    reads = ", ".join(rule for rule in protocol.rules if rule in USES_GROUPS)
    return Grid(
        _title(protocol, "by selection rule"),
        ["method", *(_rule(rule, protocol) for rule in protocol.rules)],
        [
            [
                Cell(line.name),
                *(Cell(points(line, rule), rule in line.best) for rule in protocol.rules),
            ]
            for line in protocol.lines
        ],
        [seen(line.level) for line in protocol.lines],
        [
            f"{cells.words(board.metric).capitalize()} accuracy on the test split of the same runs "
            "at the epoch that each rule selects, in percent: mean ± standard deviation over "
            "seeds; in brackets the rank in its section by these points. "
            f"{cells.strong(protocol.own.metric)} *: the rule of the data set, or the one that was "
            "chosen instead.",
            "Sections: the labels that the method itself reads."
            + (f" Of validation, the rules {reads} read group labels, too." if reads else ""),
            *protocol.notes,
        ],
    )


def _rule(rule: str, protocol: Protocol) -> str:
    return f"{rule} *" if rule == protocol.own.rule else rule


def points(line: Line, rule: str) -> str:
    """Write the accuracy under a rule, with the rank, such as "47.0 ± 3.1 (2)"."""
    text = cells.mean(line.rows[rule])
    return f"{text} ({line.ranks[rule]:g})" if rule in line.ranks else text


def _gaps(protocol: Protocol) -> Grid:
    rules = [rule for rule in protocol.rules if rule != LAST]
    rows = [
        [Cell(line.name), *(Cell(cells.points(line.gaps[rule])) for rule in rules)]
        for line in protocol.lines
    ]
    within = any(cells.WITHIN in cell.text for row in rows for cell in row[1:])
    return Grid(
        _title(protocol, "selection gap"),
        ["method", *(_rule(rule, protocol) for rule in rules)],
        rows,
        [seen(line.level) for line in protocol.lines],
        [
            "Selection gap: points at the epoch that the rule selects, minus points after the last "
            "epoch of the same runs (95 % interval). "
            + _intervals(protocol)
            + (f" {cells.WITHIN_MEANS}" if within else "")
        ],
    )


def _intervals(protocol: Protocol) -> str:
    return cells.interval(row for line in protocol.lines for row in line.rows.values())


def _agreements(protocol: Protocol) -> Grid:
    return Grid(
        _title(protocol, "who is best under which rule"),
        ["rule", "best", "Kendall's tau", "lines", "largest rank change", "reversed pairs"],
        [
            [Cell(_rule(of.rule, protocol)), *map(Cell, _agreement(of, protocol))]
            for of in protocol.agreements
        ],
        [seen(of.level) for of in protocol.agreements],
        [
            "Best: the best of the section under the rule, and those that cannot be distinguished "
            f"from it. Tau-b of the order against {protocol.own.rule}: 1 "
            "for the same order, -1 for the reverse; it counts lines that do not differ "
            "significantly, too. Reversed pairs: one line is significantly better under the one "
            "rule and significantly worse under the other."
        ],
    )


def _agreement(of: Agreement, protocol: Protocol) -> list[str]:
    more = f" and {len(of.best) - LISTED} more" if len(of.best) > LISTED else ""
    best = ", ".join(of.best[:LISTED]) + more
    if of.rule == protocol.own.rule:
        return [best, "", str(of.lines), "", ""]
    tau = "—" if math.isnan(of.tau) else f"{of.tau:.2f}"
    return [best, tau, str(of.lines), moved(of), str(of.reversed_)]


def moved(of: Agreement) -> str:
    """Write the largest change of a rank, such as "lff: 3 to 1"."""
    return f"{of.moved[0]}: {of.moved[1]:g} to {of.moved[2]:g}" if of.moved else "none"


def _premiums(protocol: Protocol) -> Grid:
    return Grid(
        _title(protocol, "what more labels are worth"),
        [
            "labels that the method reads",
            "best",
            "best of those with less labels",
            "these read",
            "points",
        ],
        [
            [
                Cell(seen(of.level)),
                Cell(of.best.name),
                Cell(of.best_of_less.name),
                Cell(seen(of.less)),
                Cell(cells.points(of.difference)),
            ]
            for of in protocol.premiums
        ],
        [cells.epoch(protocol.own.rule).capitalize()] * len(protocol.premiums),
        [
            "The best of each section minus the best of all sections that see less (95 % "
            "interval). Both were chosen by these results, so the interval is a little too narrow. "
            + _intervals(protocol)
        ],
    )


def as_csv(protocols: Sequence[Protocol]) -> str:
    """Write a row for each line and rule."""
    return flat.lines(
        [
            {**_place(protocol), **_line(line), **_under(line, rule)}
            for protocol in protocols
            for line in protocol.lines
            for rule in protocol.rules
        ]
    )


def as_json(protocols: Sequence[Protocol]) -> str:
    """Write a list of data sets, each with its lines under all rules, agreements and premiums."""
    return flat.text(
        [
            {
                **_place(protocol),
                "rules": protocol.rules,
                "lines": [
                    {
                        **_line(line),
                        "records": line.rows[protocol.own.rule].records,
                        "under": [_under(line, rule) for rule in protocol.rules],
                    }
                    for line in protocol.lines
                ],
                "agreements": [_flat_agreement(of) for of in protocol.agreements],
                "premiums": [_flat_premium(of) for of in protocol.premiums],
                "notes": protocol.notes,
            }
            for protocol in protocols
        ]
    )


FLAT: dict[str, Callable[[Sequence[Protocol]], str]] = {"csv": as_csv, "json": as_json}
"""Format without a layout -> the function that writes protocols in it."""


def _place(protocol: Protocol) -> dict[str, object]:
    board = protocol.own
    return {
        "dataset": board.dataset,
        "model": board.model,
        "metric": board.metric,
        "own_rule": board.rule,
    }


def labels(level: Level) -> dict[str, object]:
    """Return the labels that a section reads, and how settings were found, for CSV and JSON."""
    return {
        "train_labels": LEVELS[level[0]],
        "val_labels": LEVELS[level[1]],
        "tuning": tuning_name(level[2]),
    }


def _line(line: Line) -> dict[str, object]:
    row = next(iter(line.rows.values()))
    return {**labels(line.level), "method": row.method, "name": line.name}


def _under(line: Line, rule: str) -> dict[str, object]:
    row = line.rows[rule]
    return {
        "rule": rule,
        "mean": flat.blank(row.mean),
        "deviation": flat.blank(row.deviation),
        "low": flat.blank(row.interval.low),
        "high": flat.blank(row.interval.high),
        "rank": line.ranks.get(rule),
        "best": rule in line.best,
        **flat.difference(line.gaps.get(rule, Difference()), "gap"),
        "seeds": " ".join(map(str, row.values)),
    }


def _flat_agreement(of: Agreement) -> dict[str, object]:
    return {
        **labels(of.level),
        "rule": of.rule,
        "lines": of.lines,
        "best": of.best,
        "tau": flat.blank(of.tau),
        "moved": of.moved[0] if of.moved else None,
        "moved_from": of.moved[1] if of.moved else None,
        "moved_to": of.moved[2] if of.moved else None,
        "reversed_pairs": of.reversed_,
    }


def _flat_premium(of: Premium) -> dict[str, object]:
    return {
        **labels(of.level),
        "best": of.best.name,
        "less": labels(of.less),
        "best_of_less": of.best_of_less.name,
        **flat.difference(of.difference),
    }

"""How much results depend on the protocol: on the selection rule, and on the labels that are seen.

All rules are followed in the same training, so the same runs are shown under each of them. Lines
are in sections by the labels that the method itself reads; what a rule reads belongs to its column.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError
from debiasbench.leaderboard.board import boards
from debiasbench.leaderboard.comparison import RANKED, all_pairs, is_comparable
from debiasbench.leaderboard.notes import FEW, SMALL, by_older_rules, over_seeds_alone
from debiasbench.leaderboard.orders import kendall, places
from debiasbench.leaderboard.row import Difference
from debiasbench.records.selection import RULES, USES_GROUPS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.row import Level, Row
    from debiasbench.leaderboard.standing import Standing
    from debiasbench.leaderboard.tuning import Tuned
    from debiasbench.records.correct import Correct
    from debiasbench.records.record import Record

LAST = "last"  # reads no label: what the others are compared with


@dataclass(frozen=True)
class Line:
    """One method with one setting under every rule.

    `level`: what the method itself sees. `rows`: rule -> its row; the runs are the same.
    `ranks`: rule -> rank by points in its section, among the lines that are compared under all
    rules; empty for the others. `gaps`: rule -> the accuracy under the rule minus that after the
    last epoch, paired by seed and test sample.
    """

    name: str
    level: Level
    rows: dict[str, Row]
    ranks: dict[str, float] = field(default_factory=dict)
    gaps: dict[str, Difference] = field(default_factory=dict)
    # rules under which it is best, or not distinguishable from the best
    best: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Agreement:
    """How a rule orders the lines of a section, against the data set's own rule.

    `best`: names, best first, of the lines that tests cannot distinguish from the best. `tau`:
    Kendall's tau-b of the two orders. `moved`: name, rank under the own rule and under this one of
    the line whose rank changes most; None if none does. `reversed_`: pairs of which one line is
    significantly better under the one rule, and significantly worse under the other.
    """

    level: Level
    rule: str
    lines: int
    best: list[str]
    tau: float
    moved: tuple[str, float, float] | None
    reversed_: int


@dataclass(frozen=True)
class Premium:
    """What more labels are worth: the best of a section minus the best of all that see less.

    `less`: the section of the latter.
    """

    level: Level
    less: Level
    best: Row
    best_of_less: Row
    difference: Difference


@dataclass(frozen=True)
class Protocol:
    """The lines of one data set and network under all selection rules."""

    own: Board  # under the data set's rule, or the one that was chosen instead of it
    rules: list[str]  # that have values, `last` first
    lines: list[Line]  # by section, then in order of the own rule
    agreements: list[Agreement]  # of sections with two lines or more
    premiums: list[Premium]  # under the own rule
    notes: list[str]


def protocols(
    records: Sequence[Record],
    *,
    dataset: str | None = None,
    metric: str | None = None,
    select: str | None = None,
    correct: Mapping[str, Mapping[str, Correct]] | None = None,
    unverified: Collection[str] = (),
    standing: Standing | None = None,
    tuned: Tuned | None = None,
) -> list[Protocol]:
    """Compare the selection rules for each data set and network.

    `records` and `correct` must hold all rules: see `gather(whole=True)`. `select`: the rule that
    the others are compared with, instead of that of each data set. The other arguments are those of
    `boards`. Raises `RecordError` if no data set has values under two rules, and
    `UnknownNameError`.
    """
    made = {
        rule: boards(
            records,
            dataset=dataset,
            metric=metric,
            select=rule,
            correct=correct,
            unverified=unverified,
            standing=standing,
            tuned=tuned,
        )
        for rule in dict.fromkeys([*RULES, *([select] if select else [])])
    }
    found = []
    for number, board in enumerate(made[LAST]):
        by_rule = {rule: made[rule][number] for rule in RULES}
        names = {name for row in board.rows for name in row.records}
        task = next(record.task for record in records if record.id in names)
        own = by_rule[select or task.select]
        smallest = min((n for n in task.group_counts["val"] if n), default=0)
        if (one := _protocol(own, by_rule, smallest)) is not None:
            found.append(one)
    if not found:
        raise RecordError(
            "--protocol compares selection rules, and no record here has results under two of "
            "them. Make the records again, or leave out --protocol"
        )
    return found


def _protocol(own: Board, by_rule: Mapping[str, Board], smallest: int) -> Protocol | None:
    rules = [rule for rule, board in by_rule.items() if any(row.values for row in board.rows)]
    if len(rules) < 2 or own.rule not in rules:
        return None
    of_rule = {
        rule: {name: row for row in by_rule[rule].rows for name in row.records} for rule in rules
    }
    lines = []
    for row in own.rows:
        found = {rule: row_of(row, of) for rule, of in of_rule.items()}
        rows = {rule: one for rule, one in found.items() if one is not None}
        lines.append(Line(row.name, level_of(row, rows.get(LAST, row)), rows))
    done: list[Line] = []
    agreements: list[Agreement] = []
    for level in sorted({line.level for line in lines}):
        section = [line for line in lines if line.level == level]
        ranked, agreed = ordered(section, own.rule, {rule: by_rule[rule] for rule in rules})
        done += ranked
        agreements += agreed
    left_out = [rule for rule in RULES if rule not in rules]
    return Protocol(
        own, rules, done, agreements, _premiums(done, own), _notes(done, own, left_out, smallest)
    )


def row_of(row: Row, of: Mapping[str, Row]) -> Row | None:
    """Return the row that holds the same runs under another rule; None if there is none.

    `of`: id of a record -> its row under that rule. If several rows hold these runs, return the
    first that is not out of date.
    """
    found = [of[name] for name in row.records if name in of]
    return next((one for one in found if not one.stale), found[-1] if found else None)


def level_of(row: Row, last: Row) -> Level:
    """Return what the method itself sees, and how its settings were found for the own rule."""
    return (*last.level[:2], row.tuning)


def ordered(
    lines: Sequence[Line], own: str, by_rule: Mapping[str, Board]
) -> tuple[list[Line], list[Agreement]]:
    """Return the lines of a section with ranks and marks, and how the rules agree with `own`.

    `by_rule`: the board that has the rows of the lines under each rule.
    """
    compared = [
        i for i, line in enumerate(lines) if all(is_comparable(row) for row in line.rows.values())
    ]
    ranks: dict[str, list[float]] = {}
    worse: dict[str, Collection[tuple[int, int]]] = {}
    best: dict[str, list[int]] = {}
    for rule, board in by_rule.items():
        rows = [lines[i].rows[rule] for i in compared]
        comparison = board.comparison
        if len(rows) < 2 or comparison is None or not comparison.ranks(rows):
            continue
        ranks[rule] = places([row.mean for row in rows])
        p = None
        if len(rows) <= RANKED:
            p = comparison.tests([(rows[i], rows[j]) for i, j in all_pairs(len(rows))])
        worse[rule] = set() if p is None else comparison.worse(rows, p)
        marked = [k for k, mark in enumerate(comparison.marks(rows, p)) if mark]
        best[rule] = sorted(marked, key=lambda k, rule=rule: ranks[rule][k])  # type: ignore[misc]
    place = {i: k for k, i in enumerate(compared)}
    made = [
        replace(
            line,
            ranks={rule: of[place[i]] for rule, of in ranks.items() if i in place},
            gaps=gaps,
            best=frozenset(rule for rule, of in best.items() if i in place and place[i] in of),
        )
        for i, (line, gaps) in enumerate(zip(lines, _gaps(lines, by_rule), strict=True))
    ]
    if own not in ranks:
        return made, []
    names = [lines[i].name for i in compared]
    agreements = []
    for rule, order in ranks.items():
        turned = {(j, i) for i, j in worse[rule]}
        agreements.append(
            Agreement(
                lines[0].level,
                rule,
                len(names),
                [names[k] for k in best[rule]],
                kendall(ranks[own], order),
                _moved(names, ranks[own], order),
                len(turned & set(worse[own])),
            )
        )
    return made, agreements


def _gaps(lines: Sequence[Line], by_rule: Mapping[str, Board]) -> list[dict[str, Difference]]:
    """Return for each line the differences to the last epoch; a row of one seed has none."""
    gaps: list[dict[str, Difference]] = [{} for _ in lines]
    for rule, board in by_rule.items():
        if rule == LAST or LAST not in by_rule or board.comparison is None:
            continue
        pairs = [(line.rows[rule], line.rows[LAST]) for line in lines]
        for gap, difference in zip(gaps, board.comparison.differences(pairs), strict=True):
            gap[rule] = difference
    return gaps


def _moved(
    names: Sequence[str], own: Sequence[float], other: Sequence[float]
) -> tuple[str, float, float] | None:
    change, k = max((abs(a - b), -k) for k, (a, b) in enumerate(zip(own, other, strict=True)))
    return (names[-k], own[-k], other[-k]) if change else None


def _premiums(lines: Sequence[Line], own: Board) -> list[Premium]:
    best: dict[Level, Row] = {}
    for line in lines:
        row = line.rows[own.rule]
        if is_comparable(row) and (line.level not in best or row.mean > best[line.level].mean):
            best[line.level] = row
    premiums = []
    for level in sorted(best):
        below = [less for less in sorted(best) if _sees_less(less, level)]
        if below and own.comparison is not None:
            # not of a certain section: whoever may read more may read less, too
            less = max(below, key=lambda one: best[one].mean)
            difference = own.comparison.difference(best[level], best[less])
            premiums.append(Premium(level, less, best[level], best[less], difference))
    return premiums


def _sees_less(one: Level, other: Level) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1] and one[2] == other[2]


def _notes(lines: Sequence[Line], own: Board, left_out: Sequence[str], smallest: int) -> list[str]:
    made = []
    if 0 < smallest < FEW:
        samples = "sample" if smallest == 1 else "samples"
        made.append(
            f"{SMALL} has {smallest} {samples}, so rules that read group labels "
            f"({', '.join(sorted(USES_GROUPS))}) select epochs by chance in part."
        )
    old = [
        line.name
        for line in lines
        if line.rows[own.rule].values and by_older_rules(line.rows[own.rule])
    ]
    if own.rule != LAST and old:
        every = len(old) == sum(bool(line.rows[own.rule].values) for line in lines)
        which = "All lines" if every else ", ".join(old)
        made.append(
            f"{which}: epochs were selected by older rules, which kept the earliest of epochs with "
            "equal accuracy, often the first one."
        )
    if len(lines) > RANKED:
        made.append(f"Sections of more than {RANKED} lines are not tested.")
    made += over_seeds_alone([line.rows[own.rule] for line in lines])
    if left_out:
        made.append(f"Without values, so not shown: {', '.join(left_out)}.")
    if apart := [line.name for line in lines if not line.ranks and len(lines) > 1]:
        made.append(
            "Not ranked (alone in their section, one seed, failed runs, out of date, or a worst "
            f"group that says little): {', '.join(apart)}."
        )
    return made

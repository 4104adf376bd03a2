"""Methods compared over several data sets: points, mean ranks, and who is better on how many.

Data sets are chosen, not drawn, so nothing is averaged or tested over them but ranks; what is
missing stays missing. Lines are compared within sections of supervision only.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError, UnknownNameError
from debiasbench.leaderboard.across_notes import notes
from debiasbench.leaderboard.board import boards
from debiasbench.leaderboard.comparison import RANKED, all_pairs, is_comparable
from debiasbench.leaderboard.frame import plain
from debiasbench.leaderboard.lines import (
    BETTER,
    CANNOT_RUN,
    DONE,
    FAILED,
    NEITHER,
    NOT_RUN,
    NOTHING,
    ONE_SEED,
    STALE,
    WORSE,
    Across,
    Column,
    Entry,
    Line,
    MeanRank,
    Pair,
)
from debiasbench.leaderboard.matching import matches
from debiasbench.leaderboard.orders import friedman, places
from debiasbench.leaderboard.ranks import rank_intervals
from debiasbench.leaderboard.row import LEVELS, Difference
from debiasbench.records.selection import USES_GROUPS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.matching import Match
    from debiasbench.leaderboard.orders import Friedman
    from debiasbench.leaderboard.row import Row
    from debiasbench.leaderboard.standing import Standing
    from debiasbench.leaderboard.tuning import Tuned
    from debiasbench.records.correct import Correct
    from debiasbench.records.record import Record
    from debiasbench.specs.spec import Choice

FRIEDMAN = 12  # different data sets, below which Friedman's test can hardly decide anything


def across(
    records: Sequence[Record],
    *,
    dataset: str | None = None,
    metric: str | None = None,
    select: str | None = None,
    baseline: str | None = None,
    correct: Mapping[str, Mapping[str, Correct]] | None = None,
    unverified: Collection[str] = (),
    standing: Standing | None = None,
    tuned: Tuned | None = None,
) -> Across:
    """Compare methods over the data sets (with networks) of all records.

    The arguments are those of `boards`; `baseline` is the name of a line or of a method, and counts
    where a data set has one row of it. Rows are matched as `matches` says. Raises `RecordError` if
    there are fewer than two data sets, and `UnknownNameError`.
    """
    made = boards(
        records,
        dataset=dataset,
        metric=metric,
        select=select,
        correct=correct,
        unverified=unverified,
        standing=standing,
        tuned=tuned,
    )
    if len(made) < 2:
        found = f"{made[0].dataset} · {made[0].model}" if made else "none"
        raise RecordError(
            f"--across compares data sets, and there is one only: {found}. Add records of another "
            "data set, or leave out --across"
        )
    columns = _columns(made, records)
    lines = [Line(match, _entries(match, columns)) for match in matches(made)]
    if baseline is not None:
        lines = _with_differences(lines, columns, baseline)
    sections = list(dict.fromkeys(line.level for line in lines))
    done: list[Line] = []
    pairs: list[Pair] = []
    tests = {}
    for level in sections:
        section = [line for line in lines if line.level == level]
        ranked, compared, test = _section(section, columns)
        order = sorted(
            range(len(ranked)), key=[_order(line, ranked) for line in ranked].__getitem__
        )
        number = {i: len(done) + place for place, i in enumerate(order)}
        pairs += [_numbered(pair, number) for pair in compared]
        done += [ranked[i] for i in order]
        if test is not None:
            tests[level] = test
    pairs.sort(key=lambda pair: (pair.one, pair.other))
    return Across(columns, baseline, done, pairs, tests, notes(columns, done))


def _columns(made: Sequence[Board], records: Sequence[Record]) -> list[Column]:
    """Name columns by what differs between them: data set, options, network, fingerprint."""
    by_id = {record.id: record for record in records}
    first = [by_id[board.rows[0].records[0]] for board in made]
    labels = _short([record.spec.dataset for record in first], keep_name=True)
    networks = _short([record.spec.model for record in first], keep_name=False)
    labels = [" · ".join(filter(None, both)) for both in zip(labels, networks, strict=True)]
    for i, record in enumerate(first):
        if labels.count(labels[i]) > 1:
            labels[i] += f" · data {record.task.fingerprint[:8]}"
    names = [record.spec.dataset.name for record in first]
    return [Column(*column) for column in zip(labels, made, names, strict=True)]


def _short(choices: Sequence[Choice], *, keep_name: bool) -> list[str]:
    """Write choices without the options that all choices of the same name share."""
    same = len({choice.name for choice in choices}) == 1
    options = [{(key, plain(value)) for key, value in c.options.items()} for c in choices]
    labels = []
    for choice, of in zip(choices, options, strict=True):
        alike = [o for c, o in zip(choices, options, strict=True) if c.name == choice.name]
        differing = {one for one in of if any(one not in other for other in alike)}
        own = [f"{key}={value}" for key, value in sorted(differing)]
        named = not same or (keep_name and not own)
        labels.append(" ".join([*([choice.name] if named else []), *own]))
    return labels


def _entries(match: Match, columns: Sequence[Column]) -> list[Entry]:
    return [
        Entry(_state(match, row, column), row)
        for row, column in zip(match.rows, columns, strict=True)
    ]


def _state(match: Match, row: Row | None, column: Column) -> str:
    if row is None:
        elsewhere = any(
            other.method == match.method and other.level[:2] != match.level[:2]
            for other in column.board.rows
        )
        blind = LEVELS[match.level[1]] in {"none", "inputs"}
        forbidden = blind and column.board.rule in USES_GROUPS
        return CANNOT_RUN if elsewhere or forbidden else NOT_RUN
    if row.stale:
        return STALE
    if row.failed:
        return FAILED
    if not row.values:
        return CANNOT_RUN
    return DONE if is_comparable(row) else ONE_SEED


def _with_differences(
    lines: Sequence[Line], columns: Sequence[Column], baseline: str
) -> list[Line]:
    base = [line for line in lines if line.name == baseline]
    base = base or [line for line in lines if line.match.method == baseline]
    if not base:
        raise UnknownNameError("baseline", baseline, {line.name for line in lines})
    entries: list[list[Entry]] = [[] for _ in lines]
    for c, column in enumerate(columns):
        # a method may be in another section on another data set, or have several settings on one
        rows = [of for line in base if (of := line.entries[c].row) is not None]
        row = rows[0] if len(rows) == 1 else None
        comparison = column.board.comparison
        for number, line in enumerate(lines):
            entry = line.entries[c]
            if row is not None and entry.row not in (None, row) and comparison is not None:
                entry = replace(entry, difference=comparison.difference(entry.row, row))
            entries[number].append(entry)
    return [replace(line, entries=of) for line, of in zip(lines, entries, strict=True)]


def _section(
    lines: Sequence[Line], columns: Sequence[Column]
) -> tuple[list[Line], list[Pair], Friedman | None]:
    """Compare the lines of a section on each data set; pairs have the numbers within it."""
    never = {CANNOT_RUN, NOT_RUN}
    possible = [
        c for c in range(len(columns)) if any(line.entries[c].state not in never for line in lines)
    ]
    lines = [
        replace(line, complete=all(line.entries[c].state == DONE for c in possible), of=possible)
        for line in lines
    ]
    numbers = all_pairs(len(lines)) if len(lines) <= RANKED else []
    differences = {pair: [NOTHING] * len(columns) for pair in numbers}
    verdicts: dict[tuple[int, int], list[str | None]] = {
        pair: [None] * len(columns) for pair in numbers
    }
    worse_on: dict[int, set[tuple[int, int]]] = {}  # where rows can be ranked
    for c in possible if numbers else []:
        compared = [i for i, line in enumerate(lines) if line.entries[c].state == DONE]
        failed = {i for i, line in enumerate(lines) if line.entries[c].state == FAILED}
        found = _compared(lines, c, compared, columns[c])
        if found is None:
            continue
        worse_on[c], between = found
        for pair, difference in between.items():
            differences[pair][c] = difference
            if not math.isnan(difference.mean):  # they have two seeds in common
                verdicts[pair][c] = _verdict(pair, worse_on[c])
        for one, other in numbers:
            if one in failed and other in compared:
                verdicts[one, other][c] = WORSE
            if other in failed and one in compared:
                verdicts[one, other][c] = BETTER
    made = [Pair(*pair, differences[pair], verdicts[pair]) for pair in numbers]
    ranked, test = _ranked(lines, columns, worse_on)
    return [_counted(line, i, made) for i, line in enumerate(ranked)], made, test


def _compared(
    lines: Sequence[Line], c: int, places: Sequence[int], column: Column
) -> tuple[set[tuple[int, int]], dict[tuple[int, int], Difference]] | None:
    """Return which lines are significantly worse than which on a data set, and the differences.

    None if they may not be ranked there, because a worst group says too little.
    """
    rows = [row for i in places if (row := lines[i].entries[c].row) is not None]
    comparison = column.board.comparison
    if comparison is None or not comparison.ranks(rows):
        return None
    pairs = all_pairs(len(rows))
    differences = comparison.differences([(rows[i], rows[j]) for i, j in pairs])
    worse = comparison.worse(rows, [difference.p for difference in differences])
    return (
        {(places[i], places[j]) for i, j in worse},
        {(places[i], places[j]): of for (i, j), of in zip(pairs, differences, strict=True)},
    )


def _verdict(pair: tuple[int, int], worse: Collection[tuple[int, int]]) -> str:
    if pair in worse:
        return WORSE
    return BETTER if pair[::-1] in worse else NEITHER


def _ranked(
    lines: Sequence[Line],
    columns: Sequence[Column],
    worse_on: Mapping[int, Collection[tuple[int, int]]],
) -> tuple[list[Line], Friedman | None]:
    """Give the complete lines of a section their ranks on each data set, and the means of these."""
    complete = [i for i, line in enumerate(lines) if line.complete]
    used = list(worse_on)
    made = list(lines)
    if len(complete) < 2 or len(used) < 2:
        return made, None
    ranks: dict[int, list[tuple[float, int, int]]] = {i: [] for i in complete}
    for c in used:
        means = [row.mean for i in complete if (row := lines[i].entries[c].row) is not None]
        inside = {i: place for place, i in enumerate(complete)}
        worse = {(inside[i], inside[j]) for i, j in worse_on[c] if i in inside and j in inside}
        bounds = rank_intervals(len(complete), worse)
        for i, place, (low, high) in zip(complete, places(means), bounds, strict=True):
            ranks[i].append((place, low, high))
    for i in complete:
        mean, low, high = (sum(of) / len(used) for of in zip(*ranks[i], strict=True))
        entries = list(lines[i].entries)
        for c, (place, lowest, highest) in zip(used, ranks[i], strict=True):
            entries[c] = replace(entries[c], place=place, rank=(lowest, highest))
        mean_rank = MeanRank(mean, low, high, len(complete), tuple(used))
        made[i] = replace(lines[i], entries=entries, mean_rank=mean_rank)
    by_name: dict[str, list[list[float]]] = {}  # variants of a data set are not independent
    for k, c in enumerate(used):
        by_name.setdefault(columns[c].name, []).append([ranks[i][k][0] for i in complete])
    of_each = [[fmean(of) for of in zip(*variants, strict=True)] for variants in by_name.values()]
    return made, friedman(of_each) if len(of_each) >= FRIEDMAN else None


def _counted(line: Line, number: int, pairs: Sequence[Pair]) -> Line:
    own = [pair for pair in pairs if pair.one == number]
    own += [pair.turned for pair in pairs if pair.other == number]
    counts = [pair.counts() for pair in own]
    total = {name: sum(of[name] for of in counts) for name in (BETTER, WORSE, NEITHER)}
    return replace(line, verdicts=total)


def _order(line: Line, section: Sequence[Line]) -> tuple[object, ...]:
    """Sort complete lines by mean rank, and others by their data sets, and then by standing."""
    rank = line.mean_rank.mean if line.mean_rank else math.inf
    results = sum(entry.state == DONE for entry in line.entries)
    return not line.complete, rank, -results, -_standing(line, section), line.name


def _standing(line: Line, section: Sequence[Line]) -> float:
    """Return the part of comparisons on common data sets in which the line has more points."""
    shares = [
        (own.row.mean > of.row.mean) + (own.row.mean == of.row.mean) / 2
        for other in section
        if other is not line
        for own, of in zip(line.entries, other.entries, strict=True)
        if own.state == of.state == DONE and own.row is not None and of.row is not None
    ]
    return sum(shares) / len(shares) if shares else 0.0


def _numbered(pair: Pair, number: Mapping[int, int]) -> Pair:
    """Give a pair the numbers of all lines, the smaller one first."""
    numbered = replace(pair, one=number[pair.one], other=number[pair.other])
    return numbered if numbered.one < numbered.other else numbered.turned

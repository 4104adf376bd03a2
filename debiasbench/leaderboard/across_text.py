"""A comparison over data sets as tables of text, and as CSV and JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from debiasbench.leaderboard import cells, flat
from debiasbench.leaderboard.across import FRIEDMAN
from debiasbench.leaderboard.grid import Cell, Grid
from debiasbench.leaderboard.lines import (
    BETTER,
    DONE,
    FAILED,
    NEITHER,
    NOT_RUN,
    ONE_SEED,
    STALE,
    WORSE,
)
from debiasbench.leaderboard.notes import MARK, NOISE
from debiasbench.leaderboard.render import heading

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from debiasbench.leaderboard.lines import Across, Column, Entry, Line, Pair

APART = "not on every data set"
WRITTEN_OUT = 8  # lines of a section whose names are the columns of the table of pairs
TESTS = "paired tests with Holm's correction (5 %) over all pairs of the section on each data set."
ALL = (
    "Better–worse–neither: significantly better, significantly worse, and neither, counted over "
    f"all other lines of the section and all common data sets; {TESTS}"
)
DUELS = (
    "On how many common data sets the row is significantly better than the column, significantly "
    f"worse, and neither: {TESTS}"
)
MEAN_RANK = (
    "Mean rank: over data sets, among the lines of the section that have all of them; in brackets "
    "the means of the lowest and of the highest rank that the tests leave open."
)


def grids(across: Across) -> list[Grid]:
    """Lay out the table of all lines, and a table of pairs for each section of two or more."""
    return [_points(across), *_duels(across)]


def _points(across: Across) -> Grid:
    rows = [
        [
            Cell(line.name),
            Cell(mean_rank(line)),
            Cell(counts(line.verdicts)),
            *(_cell(across, line, c) for c in range(len(across.columns))),
        ]
        for line in across.lines
    ]
    return Grid(
        heading(_title(across)),
        ["method", "mean rank", "better–worse–neither", *(c.label for c in across.columns)],
        rows,
        [_section(line, across) for line in across.lines],
        [
            _meaning(across),
            _columns(across),
            MEAN_RANK,
            ALL,
            *_tests(across),
            *_signs(across),
            *across.notes,
        ],
    )


def _title(across: Across) -> str:
    names = list(dict.fromkeys(column.name for column in across.columns))
    many = len(across.columns)
    over = f"{many} variants of {names[0]}" if len(names) == 1 else f"{many} data sets"
    metrics = list(dict.fromkeys(column.board.metric for column in across.columns))
    kind = f"{cells.words(metrics[0])} accuracy" if len(metrics) == 1 else "accuracy"
    return f"{over}: {kind}"


def _section(line: Line, across: Across) -> str:
    seen = cells.section(line.match.present[0])
    if not line.complete:
        return f"{seen}: {APART}"
    if len(line.of) < len(across.columns):
        return f"{seen}: on {len(line.of)} of {len(across.columns)} data sets"
    return seen


def _meaning(across: Across) -> str:
    rules = list(dict.fromkeys(column.board.rule for column in across.columns))
    epoch = cells.epoch(rules[0]) if len(rules) == 1 else "at the epoch of each data set's rule"
    rows = [row for column in across.columns for row in column.board.rows]
    intervals = cells.interval(rows)
    if across.baseline is None:
        return f"Accuracy on the test split in percent (95 % interval), {epoch}. {intervals}"
    return (
        f"Accuracy on the test split, {epoch}: points above {across.baseline}, the mean difference "
        "over common seeds (95 % interval). Numbers with % are accuracies: of the baseline, and "
        f"where nothing can be subtracted. {intervals}"
    )


def _columns(across: Across) -> str:
    each = (f"{column.board.dataset} · {column.board.model}" for column in across.columns)
    return heading(f"Columns: {'; '.join(each)}.")


def _cell(across: Across, line: Line, c: int) -> Cell:
    text = entry(line.entries[c], across.columns[c], in_percent=across.baseline is None)
    row = line.entries[c].row
    return Cell(text, line.entries[c].state == DONE and row is not None and row.marked)


def entry(of: Entry, column: Column, *, in_percent: bool) -> str:
    """Write an entry; `in_percent`: as an accuracy, although there may be a difference."""
    if of.row is None or not (of.row.values or of.row.failed):
        return "—" if of.state == NOT_RUN else "n/a"
    mean = cells.flagged(
        cells.percent(of.row.mean), column.board.metric, column.board.incomplete, of.row
    )
    unit = "" if in_percent else " %"
    if of.state == FAILED:
        planned = len(of.row.values) + len(of.row.failed) + len(of.row.missing)
        failed = f"✗ {len(of.row.failed)} of {planned}"
        return f"{failed}, {mean}{unit}" if of.row.values else failed
    if of.state in {ONE_SEED, STALE}:
        return f"{mean}{unit}, {of.state}"
    if not in_percent and not math.isnan(of.difference.mean):
        return cells.points(of.difference)
    return f"{mean} ({cells.bounds(of.row)})" if in_percent else f"{mean} %"


def mean_rank(line: Line) -> str:
    """Write the mean rank with its range, such as "2.3 (1.3 – 4.0)"."""
    of = line.mean_rank
    return "" if of is None else f"{of.mean:.1f} ({of.low:.1f} – {of.high:.1f})"


def counts(verdicts: dict[str, int]) -> str:
    """Write better, worse, neither, such as "4–0–2"; nothing if there was no comparison."""
    numbers = [verdicts[name] for name in (BETTER, WORSE, NEITHER)]
    return "–".join(map(str, numbers)) if any(numbers) else ""


def _tests(across: Across) -> list[str]:
    if not across.friedman:
        return [
            f"No Friedman test over data sets: with fewer than {FRIEDMAN} different ones it can "
            "hardly decide anything."
        ]
    sections = {line.level: cells.section(line.match.present[0]) for line in across.lines}
    return [
        f"Friedman's test over {test.data_sets} data sets, {sections[level]}: chi² = "
        f"{test.statistic:.1f}, p = {test.p:.2g}. Mean ranks that are {test.distance:.2f} apart "
        "differ significantly (Nemenyi, 5 %)."
        for level, test in across.friedman.items()
    ]


def _signs(across: Across) -> list[str]:
    shown = [
        _cell(across, line, c).text for line in across.lines for c in range(len(across.columns))
    ]
    made = [cells.STRONG]
    if any(column.board.metric == "worst_group" for column in across.columns):
        made.append(cells.APART)
    if any(cells.WITHIN in text for text in shown):
        made.append(cells.WITHIN_MEANS)
    if any(MARK in text for text in shown):
        made.append(f"{MARK}: the metric leaves out groups without test samples.")
    if any(NOISE in text for text in shown):
        made.append(f"{NOISE}: the worst group of so few test samples says little.")
    return made


def _duels(across: Across) -> list[Grid]:
    """Lay out the pairs of each section; lines on one data set have their table there."""
    made = []
    of = {(pair.one, pair.other): pair for pair in across.pairs}
    for level in dict.fromkeys(line.level for line in across.lines):
        section = [i for i, line in enumerate(across.lines) if line.level == level]
        numbers = [i for i in section if _results(across.lines[i]) > 1]
        if len(numbers) < 2 or not any(i in numbers and j in numbers for i, j in of):
            continue
        named = len(numbers) <= WRITTEN_OUT
        names = [across.lines[i].name for i in numbers]
        numbered = [f"{k} {name}" for k, name in enumerate(names, 1)]
        rows = [
            [
                Cell(name if named else number),
                *(Cell("" if i == j else _between(of, i, j)) for j in numbers),
            ]
            for i, name, number in zip(numbers, names, numbered, strict=True)
        ]
        alone = [across.lines[i].name for i in section if i not in numbers]
        left_out = [f"Not here, because on one data set only: {', '.join(alone)}."] if alone else []
        seen = cells.section(across.lines[numbers[0]].match.present[0])
        made.append(
            Grid(
                heading(f"{_title(across)}, pairs: {seen}"),
                ["method", *(names if named else map(str, range(1, len(names) + 1)))],
                rows,
                [seen] * len(rows),
                [DUELS, *left_out],
            )
        )
    return made


def _results(line: Line) -> int:
    return sum(entry.state in {DONE, FAILED} for entry in line.entries)


def _between(of: dict[tuple[int, int], Pair], i: int, j: int) -> str:
    return counts((of[i, j] if (i, j) in of else of[j, i].turned).counts())


def as_csv(across: Across) -> str:
    """Write a row for each line and data set, and after them one for each pair and data set."""
    return flat.lines([*_entry_rows(across), *_pair_rows(across)])


def as_json(across: Across) -> str:
    """Write the data sets, lines with their entries, pairs, tests over data sets, and notes."""
    names = [column.label for column in across.columns]
    sections = {line.level: line.match.present[0] for line in across.lines}
    return flat.text(
        {
            "baseline": across.baseline,
            "data_sets": [
                {
                    "label": column.label,
                    "dataset": column.board.dataset,
                    "model": column.board.model,
                    "metric": column.board.metric,
                    "select": column.board.rule,
                    "notes": column.board.notes,
                }
                for column in across.columns
            ],
            "lines": [
                {
                    **_line(line),
                    "entries": [
                        {**_entry(e, column), "records": e.row.records if e.row else []}
                        for e, column in zip(line.entries, across.columns, strict=True)
                    ],
                }
                for line in across.lines
            ],
            "pairs": [
                {
                    "one": across.lines[pair.one].name,
                    "other": across.lines[pair.other].name,
                    **_labels(across.lines[pair.one]),
                    **pair.counts(),
                    "on": {
                        name: {"verdict": verdict, **flat.difference(difference)}
                        for name, verdict, difference in zip(
                            names, pair.verdicts, pair.differences, strict=True
                        )
                    },
                }
                for pair in across.pairs
            ],
            "friedman": [
                {
                    "train_labels": sections[level].train,
                    "val_use": sections[level].val,
                    "statistic": test.statistic,
                    "p": test.p,
                    "critical_distance": test.distance,
                    "data_sets": test.data_sets,
                    "lines": test.lines,
                }
                for level, test in across.friedman.items()
            ],
            "notes": across.notes,
        }
    )


FLAT: dict[str, Callable[[Across], str]] = {"csv": as_csv, "json": as_json}
"""Format without a layout -> the function that writes a comparison in it."""


def _labels(line: Line) -> dict[str, object]:
    row = line.match.present[0]
    return {"train_labels": row.train, "val_use": row.val}


def _line(line: Line) -> dict[str, object]:
    rank = line.mean_rank
    return {
        **_labels(line),
        "method": line.match.method,
        "setting": line.match.setting,
        "complete": line.complete,
        "mean_rank": rank.mean if rank else None,
        "mean_rank_low": rank.low if rank else None,
        "mean_rank_high": rank.high if rank else None,
        "ranked": rank.lines if rank else None,
        **line.verdicts,
    }


def _entry(of: Entry, column: Column) -> dict[str, object]:
    row = of.row
    return {
        "data_set": column.label,
        "metric": column.board.metric,
        "select": column.board.rule,
        "state": of.state,
        "mean": flat.blank(row.mean) if row else None,
        "low": flat.blank(row.interval.low) if row else None,
        "high": flat.blank(row.interval.high) if row else None,
        "rank": flat.blank(of.place),
        "rank_low": of.rank[0] if of.rank else None,
        "rank_high": of.rank[1] if of.rank else None,
        **flat.difference(of.difference),
        "seeds": " ".join(map(str, row.values)) if row else "",
        "failed_seeds": " ".join(map(str, row.failed)) if row else "",
    }


def _entry_rows(across: Across) -> list[dict[str, object]]:
    return [
        {"kind": "entry", **_line(line), "other": "", "verdict": "", **_entry(of, column)}
        for line in across.lines
        for of, column in zip(line.entries, across.columns, strict=True)
    ]


def _pair_rows(across: Across) -> Sequence[dict[str, object]]:
    blank = dict.fromkeys(_entry_rows(across)[0])
    return [
        {
            **blank,
            "kind": "pair",
            **_labels(across.lines[pair.one]),
            "method": across.lines[pair.one].match.method,
            "setting": across.lines[pair.one].match.setting,
            "other": across.lines[pair.other].name,
            **pair.counts(),
            "data_set": column.label,
            "metric": column.board.metric,
            "select": column.board.rule,
            "verdict": verdict,
            **flat.difference(difference),
        }
        for pair in across.pairs
        for column, verdict, difference in zip(
            across.columns, pair.verdicts, pair.differences, strict=True
        )
    ]

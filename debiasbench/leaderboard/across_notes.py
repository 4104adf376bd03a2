"""What a reader must know beside the numbers of a comparison over data sets, in sentences."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from debiasbench.leaderboard.comparison import RANKED, is_noise
from debiasbench.leaderboard.lines import CANNOT_RUN, FAILED, NOT_RUN, ONE_SEED, STALE
from debiasbench.leaderboard.notes import OLD_RULES, SMALL
from debiasbench.leaderboard.tuning import MEANING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.leaderboard.lines import Column, Line


def notes(columns: Sequence[Column], lines: Sequence[Line]) -> list[str]:
    """Name what a reader must know beside the numbers, in sentences."""
    return [
        *_alike(columns),
        *_mixed(columns),
        *_unranked(columns, lines),
        *_without_predictions(columns),
        *_of_boards(columns),
        *_apart(lines),
        *_trainings(lines),
        *_other_options(columns, lines),
        *([MEANING] if any(row.tuning_name for c in columns for row in c.board.rows) else []),
    ]


def _alike(columns: Sequence[Column]) -> list[str]:
    """Say which columns are variants of one data set."""
    names = [column.name for column in columns]
    return [
        f"{names.count(name) if names.count(name) < len(names) else 'All'} of the {len(names)} "
        f"columns are variants of {name}: they are not independent, and a mean rank counts each."
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]


def _mixed(columns: Sequence[Column]) -> list[str]:
    """Say that data sets have metrics or rules of their own."""
    made = []
    for what, of in (("Accuracies", "metric"), ("Epochs", "rule")):
        values: dict[str, list[str]] = {}
        for column in columns:
            values.setdefault(getattr(column.board, of), []).append(column.label)
        if len(values) > 1:
            each = "; ".join(f"{name} ({', '.join(labels)})" for name, labels in values.items())
            made.append(f"{what} of different {'kinds' if of == 'metric' else 'rules'}: {each}.")
    return made


def _of_boards(columns: Sequence[Column]) -> list[str]:
    """Name the limits of single data sets that a reader must know here, too."""
    labels: dict[str, list[str]] = {}
    for column in columns:
        for note in column.board.notes:
            if note.startswith((SMALL, OLD_RULES)):
                labels.setdefault(note, []).append(column.label)
    return [
        note if len(of) == len(columns) else f"{', '.join(of)}: {note}"
        for note, of in labels.items()
    ]


def _unranked(columns: Sequence[Column], lines: Sequence[Line]) -> list[str]:
    made = []
    if noisy := [
        column.label
        for column in columns
        if column.board.metric == "worst_group"
        and any(is_noise(row) for row in column.board.rows if row.values)
    ]:
        made.append(
            f"No ranks and no comparison by the worst group on {', '.join(noisy)}: groups have so "
            "few test samples that chance decides."
        )
    sections = Counter(line.level for line in lines)
    if any(number > RANKED for number in sections.values()):
        made.append(f"Sections of more than {RANKED} lines are not compared.")
    return made


def _without_predictions(columns: Sequence[Column]) -> list[str]:
    alone = [
        column.label
        for column in columns
        if any(row.interval.basis == "seeds" and len(row.values) > 1 for row in column.board.rows)
    ]
    if not alone or all_over_seeds(columns):
        return []  # the description of the numbers says it of all rows
    return [
        f"Predictions are missing on {', '.join(alone)}: intervals and tests are over seeds alone "
        "there, at least for some lines, so that they are too narrow."
    ]


def all_over_seeds(columns: Sequence[Column]) -> bool:
    """Say whether no row has an interval over test samples."""
    rows = [row for column in columns for row in column.board.rows if len(row.values) > 1]
    return bool(rows) and all(row.interval.basis == "seeds" for row in rows)


def _apart(lines: Sequence[Line]) -> list[str]:
    """Explain the signs that occur."""
    states = {entry.state for line in lines for entry in line.entries}
    meaning = {
        NOT_RUN: "—: not run.",
        FAILED: "✗ 1 of 5: one of five runs failed; the accuracy is that of the others. The "
        "line is not ranked, and loses each comparison there.",
        CANNOT_RUN: "n/a: cannot run in this section: the selection rule of the data set reads "
        "other labels, or has no value.",
        ONE_SEED: "One seed: not compared.",
        STALE: "Out of date: made by older code than other rows there, or withdrawn; not compared.",
    }
    return [words for state, words in meaning.items() if state in states]


def _trainings(lines: Sequence[Line]) -> list[str]:
    if not any("train." in line.match.setting for line in lines):
        return []
    return [
        "Some methods have several training settings on one data set, so each setting is a line of "
        "its own. With the records of one training for each data set, a method is one line."
    ]


def _other_options(columns: Sequence[Column], lines: Sequence[Line]) -> list[str]:
    """Name the options that a line has with other values on other data sets."""
    made = []
    for line in lines:
        labels = [c.label for c, row in zip(columns, line.match.rows, strict=True) if row]
        for option, values in line.match.differing.items():
            by_value: dict[str, list[str]] = {}
            for label, value in zip(labels, values, strict=True):
                by_value.setdefault(value, []).append(label)
            each = "; ".join(
                f"{value} ({', '.join(_together(of, columns))})" for value, of in by_value.items()
            )
            made.append(f"{line.name}: {option} differs between data sets: {each}.")
    return made


def _together(labels: Sequence[str], columns: Sequence[Column]) -> list[str]:
    """Write the name of a data set instead of the labels of all its variants."""
    named = {column.label: column.name for column in columns}
    variants = {
        name: {column.label for column in columns if column.name == name} for name in named.values()
    }
    short = [named[label] if variants[named[label]] <= set(labels) else label for label in labels]
    return list(dict.fromkeys(short))

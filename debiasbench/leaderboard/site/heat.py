"""Heat maps of groups: a table of classes by biases with the accuracy of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.leaderboard.figures import colours
from debiasbench.leaderboard.figures.figure import FEW
from debiasbench.leaderboard.row import last_of_each_seed
from debiasbench.records.record import test_counts as record_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from debiasbench.leaderboard.row import Row
    from debiasbench.leaderboard.site.content import Content, Place
    from debiasbench.records.metrics import GroupCounts
    from debiasbench.records.record import Record, TaskFacts

MOST = 1500  # cells of a page; a hundred groups of many rows would fill it


@dataclass(frozen=True)
class Square:
    """A cell: the accuracy in percent, the classes of the style, and what a pointer shows."""

    text: str
    kind: str
    title: str


@dataclass(frozen=True)
class Heat:
    """The accuracies of all groups, a list of squares for each class."""

    title: str
    classes: Sequence[str]
    biases: Sequence[str]
    squares: Sequence[Sequence[Square]]


def heat(title: str, task: TaskFacts, counts: GroupCounts) -> Heat:
    """Draw the accuracies of the groups of a split."""
    accuracy = counts.accuracy
    return Heat(
        title,
        task.classes,
        task.biases,
        [
            [
                _square(float(accuracy[c, b]), int(counts.totals[c, b]), bool(counts.aligned[c, b]))
                for b in range(len(task.biases))
            ]
            for c in range(len(task.classes))
        ],
    )


def _square(accuracy: float, samples: int, aligned: bool) -> Square:
    title = f"n = {samples:,}" + (", aligned" if aligned else "")
    kind = "a " if aligned else ""
    if math.isnan(accuracy):
        return Square("—", f"{kind}none", title)
    few = " few" if samples < FEW else ""
    return Square(f"{100 * accuracy:.0f}", f"{kind}h{colours.heat(accuracy)}{few}", title)


def of_row(content: Content, place: Place, row: Row, rule: str) -> Heat | None:
    """Draw the mean accuracies over the seeds of a row; None if no seed has a value."""
    done = [content.records[name] for name in row.records]
    done = [record for record in last_of_each_seed(done) if record.spec.seed in row.values]
    if not done:
        return None
    return heat(row.name, place.task, _summed(done, rule))


def _summed(records: Sequence[Record], rule: str) -> GroupCounts:
    """Return counts whose hits are the means over records, so that accuracies are means too."""
    hits: NDArray[Any] = np.sum([r.outcomes[rule].test.hits for r in records], axis=0)
    mean: NDArray[Any] = hits / len(records)
    counts = record_counts(records[0], records[0].outcomes[rule])
    return replace(counts, hits=mean.reshape(counts.hits.shape))


def chosen(rows: Sequence[Row], task: TaskFacts, most: int = MOST) -> list[Row]:
    """Choose the rows that a page has room for, in order: the best of each section come first."""
    groups = len(task.classes) * len(task.biases)
    room = max(most // groups, 1)
    with_values = [row for row in rows if row.values]
    first: dict[tuple[int, ...], Row] = {}
    for row in with_values:
        first.setdefault(row.level, row)
    best = list(first.values())
    others = [row for row in with_values if not any(row is one for one in best)]
    kept = [*best, *others][:room]
    return [row for row in with_values if any(row is one for one in kept)]

"""The accuracy of every group: a heat map of classes by bias values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from debiasbench.common.wording import counted
from debiasbench.leaderboard import cells
from debiasbench.leaderboard.figures.figure import FEW, Axis, Figure, Key, Square, Tick
from debiasbench.leaderboard.figures.layout import cut, length
from debiasbench.leaderboard.render import heading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.records.record import Record

WIDE, HIGH = 46.0, 32.0  # pixels of a square, at least
WIDEST = 110.0  # of the name of a bias value


def groups(name: str, records: Sequence[Record], rule: str) -> Figure | None:
    """Return the mean accuracy of each group over the runs of one row; None without a result.

    `name`: of the row. `records`: of the row, all of the same data set; those without an outcome
    of the selection rule do not count.
    """
    done = [record for record in records if rule in record.outcomes and record.failure is None]
    if not done:
        return None
    task = done[0].task
    of_all = [record.outcomes[rule].test.hits for record in done]
    hits = [sum(of) / len(of) for of in zip(*of_all, strict=True)]
    totals = task.group_counts["test"]
    squares = []
    for place, (hit, total) in enumerate(zip(hits, totals, strict=True)):
        row, column = divmod(place, len(task.biases))
        accuracy = hit / total if total else math.nan
        group = f"{task.classes[row]} with {task.biases[column]}"
        aligned = task.aligned[row][column]
        kind = "aligned" if aligned else "conflicting"
        said = f"{cells.percent(accuracy)} %" if total else "no test sample"
        text = f"{group} ({kind}, n={total:,}): {said}."
        squares.append(Square(column, -row, accuracy, total, aligned, text))
    rows, columns = len(task.classes), len(task.biases)
    names = max(length(cut(name, WIDEST)) for name in task.biases)
    wide = max(WIDE, 180.0 / columns, names + 8)
    return Figure(
        title=heading(f"Accuracy of each group, {name}, {done[0].spec.dataset.name}"),
        x=Axis("bias", -0.5, columns - 0.5, _names(task.biases)),
        y=Axis("class", 0.5 - rows, 0.5, _names(task.classes, -1)),
        marks=tuple(squares),
        notes=(
            f"Percent of the test samples of each group, mean over {counted(len(done), 'seed')}, "
            f"{cells.epoch(rule)}. n: test samples. Bold: groups that are aligned with the bias.",
        ),
        keys=(Key(f"fewer than {FEW} samples", None, "hatch"),)
        if any(square.few for square in squares)
        else (),
        width=wide * columns,
        height=HIGH * rows,
    )


def _names(names: Sequence[str], sign: int = 1) -> tuple[Tick, ...]:
    return tuple(
        Tick(sign * place, name if sign < 0 else cut(name, WIDEST))
        for place, name in enumerate(names)
    )

"""Texts about a board in its figures, and which of its rows figures show."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from debiasbench.leaderboard import cells
from debiasbench.leaderboard.notes import MARK, listed
from debiasbench.leaderboard.render import heading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.row import Row


def title(board: Board, what: str) -> str:
    """Return the title of a figure of a board."""
    return heading(f"{what}, {board.dataset} · {board.model}")


def accuracies(board: Board) -> str:
    """Name the accuracy that a board is about, at the start of a sentence."""
    return f"{cells.words(board.metric)} accuracy".capitalize()


def numbers(row: Row) -> str:
    """Write the accuracy of a row and its interval, such as "54.3 % (50.1 – 58.2)"."""
    middle = f"{cells.percent(row.mean)} %"
    return middle if math.isnan(row.interval.low) else f"{middle} ({cells.bounds(row)})"


def intervals(rows: Sequence[Row]) -> str:
    """Say what the intervals of rows are over, such as "95 % intervals over test samples"."""
    over = {
        "both": "over seeds and test samples together",
        "seeds": "over seeds alone, so they are too narrow",
        "samples": "over test samples alone",
    }
    bases: dict[str, list[str]] = {}
    for row in rows:
        if not math.isnan(row.interval.low):
            bases.setdefault(row.interval.basis, []).append(row.name)
    if not bases:
        return "There are no intervals."
    usual = max(bases, key=lambda basis: len(bases[basis]))
    others = [f"; {', '.join(names)}: {over[b]}" for b, names in bases.items() if b != usual]
    return f"95 % intervals {over[usual]}{''.join(others)}."


def shown(board: Board) -> list[Row]:
    """Return the rows with an accuracy that are not out of date."""
    return [row for row in board.rows if not math.isnan(row.mean) and not row.stale]


def incomplete(board: Board, cost: str) -> list[str]:
    """Name what is not drawn, and what is drawn but does not count in full."""
    sentences = []
    rows = shown(board)
    if without := [row.name for row in rows if math.isnan(row.costs[cost])]:
        sentences.append(f"Not drawn, without {cells.words(cost)}: {', '.join(without)}.")
    if stale := [row.name for row in board.rows if row.stale]:
        sentences.append(f"Not drawn, out of date: {', '.join(stale)}.")
    if none := [row.name for row in board.rows if math.isnan(row.mean)]:
        sentences.append(f"Not drawn, without a result: {', '.join(none)}.")
    sentences += [
        f"{row.name}: seeds {listed(row.failed)} failed and do not count."
        for row in rows
        if row.failed
    ]
    if board.metric in board.incomplete:
        sentences.append(
            f"{MARK} Groups without test samples are left out, so the accuracies may be too "
            "favourable."
        )
    return sentences

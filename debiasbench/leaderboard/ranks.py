"""Ranks with intervals, from all pairwise tests of a section."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


def rank_intervals(number: int, worse: Collection[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the lowest and the highest rank of each of `number` rows; 1 is the best.

    `worse`: pairs (i, j) of rows of which i is significantly worse than j. If the family-wise error
    of all pairs is 5 %, all intervals hold together at 95 % (Mogstad, Romano, Shaikh and Wilhelm,
    Inference for Ranks, Review of Economic Studies 2024).
    """
    better = [sum(i == row for i, _ in worse) for row in range(number)]
    below = [sum(j == row for _, j in worse) for row in range(number)]
    return [(1 + better[row], number - below[row]) for row in range(number)]

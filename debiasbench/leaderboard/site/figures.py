"""The figures of a board, with their captions, for a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from debiasbench.leaderboard.figures import PARETO, Worse, density, pareto, ranks, svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.leaderboard.board import Board
    from debiasbench.leaderboard.figures import Figure


MOST = 60  # rows of a board whose figures, all but one, have room beside its table


@dataclass(frozen=True)
class Shown:
    """A figure: its title, what its caption says, and its picture."""

    title: str
    notes: str
    picture: Markup


def beside(board: Board) -> list[Shown]:
    """Draw the figures that have room beside the table of a board."""
    return figures(board) if len(board.rows) <= MOST else _shown([density(board)])


def figures(board: Board) -> list[Shown]:
    """Draw all figures that a board has data for."""
    worse = Worse(board)
    costs = [pareto(board, cost, worse) for cost in PARETO]
    return _shown([density(board), ranks(board), *costs])


def _shown(made: Sequence[Figure | None]) -> list[Shown]:
    return [
        Shown(one.title, " ".join(one.notes), Markup(svg(one))) for one in made if one is not None
    ]

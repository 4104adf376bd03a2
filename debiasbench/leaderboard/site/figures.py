"""The figures of a board, with their captions, for a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from debiasbench.leaderboard.figures import density, svg

if TYPE_CHECKING:
    from debiasbench.leaderboard.board import Board


@dataclass(frozen=True)
class Shown:
    """A figure: its title, what its caption says, and its picture."""

    title: str
    notes: str
    picture: Markup


def figures(board: Board) -> list[Shown]:
    """Draw the figures that a board has data for."""
    made = [density(board)]
    return [
        Shown(one.title, " ".join(one.notes), Markup(svg(one))) for one in made if one is not None
    ]

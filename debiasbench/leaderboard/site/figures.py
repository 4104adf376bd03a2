"""The figures of a board: drawn elsewhere, and shown with what a reader must know of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from debiasbench.leaderboard.board import Board


@dataclass(frozen=True)
class Shown:
    """A figure: its title, and its picture."""

    title: str
    picture: Markup


def figures(board: Board) -> list[Shown]:
    """Draw the figures that a board has data for."""
    del board
    return []

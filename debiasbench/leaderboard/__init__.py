"""Tables from records, without torch. Most names are imported when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

# these have the names of their modules, which would take their places
from debiasbench.leaderboard.frame import frame as frame
from debiasbench.leaderboard.render import FORMATS as FORMATS
from debiasbench.leaderboard.render import render as render
from debiasbench.leaderboard.table import table as table

if TYPE_CHECKING:
    from debiasbench.leaderboard.board import Board as Board
    from debiasbench.leaderboard.board import boards as boards
    from debiasbench.leaderboard.columns import COLUMNS as COLUMNS
    from debiasbench.leaderboard.gather import distinct as distinct
    from debiasbench.leaderboard.pivot import Pivot as Pivot
    from debiasbench.leaderboard.pivot import pivots as pivots
    from debiasbench.leaderboard.row import Row as Row

_NAMES = {
    "board": ["Board", "boards"],
    "columns": ["COLUMNS"],
    "gather": ["distinct"],
    "pivot": ["Pivot", "pivots"],
    "row": ["Row"],
}
_MODULES = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}

__all__ = sorted([*_MODULES, "FORMATS", "frame", "render", "table"])  # noqa: PLE0605 - a list of texts


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # the next time it is found at once
    return value

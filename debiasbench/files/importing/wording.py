"""How combined bias values and long lists are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def joined(values: tuple[str, ...], columns: tuple[str, ...]) -> str:
    """Return the name of a bias value; of several columns it is "place=water,season=winter"."""
    if len(values) == 1:
        return values[0]
    return ",".join(f"{column}={value}" for column, value in zip(columns, values, strict=True))


def few(words: Sequence[str], limit: int = 10, separator: str = ", ") -> str:
    """Join at most `limit` words, and give the number of the others."""
    more = f" and {len(words) - limit:,} more" if len(words) > limit else ""
    return separator.join(words[:limit]) + more

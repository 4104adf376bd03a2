"""Numbers with their nouns, as messages write them."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return "1 run" or "1,000 runs"; the plural of `noun` must end in "s"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")

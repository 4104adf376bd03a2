"""Numbers, values and lists of names, as messages write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

VALUE = 80  # characters of a value in a message
NAMES = 400  # characters of a list of names in a message


def counted(number: int, noun: str) -> str:
    """Return "1 run" or "1,000 runs"; the plural of `noun` must end in "s"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def shortened(text: str, longest: int = VALUE) -> str:
    """Return a text of at most `longest` characters, without its middle if it is longer."""
    if len(text) <= longest:
        return text
    half = (longest - len(" ... ")) // 2
    return f"{text[: longest - half - len(' ... ')]} ... {text[-half:]}"


def shown(value: object) -> str:
    """Return the repr of a value, shortened."""
    try:
        return shortened(repr(value))
    except (RecursionError, ValueError):  # Python does not write integers of 5,000 digits
        return f"<{type(value).__name__} that is too large to print>"


def listed(names: Collection[str], longest: int = NAMES) -> str:
    """Return names separated by commas; a list that is too long ends with the number of names."""
    text = ", ".join(names)
    if len(text) <= longest:
        return text or "none"
    return f"{text[:longest].rpartition(',')[0]}, ... ({len(names):,} in total)"

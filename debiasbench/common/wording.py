"""Text as messages write it: counts, values and names, and nothing that controls a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

VALUE = 80  # characters of a value in a message
NAMES = 400  # characters of a list of names in a message

# control characters except tab and newline, line separators, marks that change the direction of
# writing, and surrogates, which stand for the bytes of a file name that is not UTF-8
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def counted(number: int, noun: str) -> str:
    """Return "1 run" or "1,000 runs"; the plural of `noun` must end in "s"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def readable_size(size: float) -> str:
    """Return a number of bytes in the unit that suits it, such as "1.2 GB"."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size:,.0f} bytes"


def readable_time(seconds: float) -> str:
    """Return a time in the unit that suits it, such as "40 s", "12 minutes" or "3.5 hours"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 86400:.1f} days"


def printable(text: str) -> str:
    r"""Return text with its control characters escaped, such as `\x1b`.

    Use it for file names and for text from files, which may hold sequences that terminals obey.
    Tabs and newlines stay.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shortened(text: str, most: int = 300) -> str:
    """Return text of at most `most` characters, with "..." in the middle if it was longer."""
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"


def shown(value: object) -> str:
    """Return the repr of a value, shortened."""
    try:
        return shortened(repr(value), VALUE)
    except (RecursionError, ValueError):  # Python does not write integers of 5,000 digits
        return f"<{type(value).__name__} that is too large to print>"


def joined(names: Sequence[str], word: str) -> str:
    """Return "a", "a and b" or "a, b and c", where `word` is "and"; at least one name."""
    *others, last = names
    return f"{', '.join(others)} {word} {last}" if others else last


def listed(names: Collection[str], most: int = NAMES) -> str:
    """Return names separated by commas; a list that is too long ends with the number of names."""
    text = ", ".join(names)
    if len(text) <= most:
        return text or "none"
    return f"{text[:most].rpartition(',')[0]}, ... ({len(names):,} in total)"

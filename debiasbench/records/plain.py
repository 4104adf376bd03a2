"""What a value in a record may be, wherever its type is not declared."""

from __future__ import annotations

import math
import re

DEPTH = 32  # lists and objects inside each other
LONG = 64  # bits of a whole number

_SUSPECT = re.compile(r"\\u[dD][89a-fA-F]|\d{20}")


def is_suspect(text: str) -> bool:
    """Say whether JSON may hold a lone surrogate or a whole number beyond 64 bits.

    Much faster than a look at every value; almost no text of a record is suspect.
    """
    return _SUSPECT.search(text) is not None


def fault(value: object, *, finite: bool = False, depth: int = DEPTH) -> str | None:
    """Say what is wrong with a value that JSON held, None if nothing is.

    `finite`: NaN and infinities are wrong, too.
    """
    if isinstance(value, str):
        return None if value.isascii() else _fault_of_text(value)
    if isinstance(value, dict | list):
        if depth == 0:
            return f"it has more than {DEPTH} lists or objects inside each other"
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        found = (fault(item, finite=finite, depth=depth - 1) for item in inner)
        return next(filter(None, found), None)
    if isinstance(value, int) and abs(value) >= 1 << LONG:
        return f"it has a whole number of more than {LONG} bits"
    if finite and isinstance(value, float) and not math.isfinite(value):
        return f"it has the number {value}"
    return None


def _fault_of_text(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it has half of a character (a lone surrogate)"
    return None

"""What a value in a record may be, wherever its type is not declared."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from debiasbench.common.wording import shortened

if TYPE_CHECKING:
    from pydantic import ValidationError

DEPTH = 32  # lists and objects inside each other
LONG = 64  # bits of a whole number


def fault(value: object, *, finite: bool = False, depth: int = DEPTH) -> str | None:
    """Say what is wrong with a value that JSON held, None if nothing is.

    `finite`: NaN and infinities are wrong, too.
    """
    if isinstance(value, dict | list):
        if depth == 0:
            return f"it has more than {DEPTH} lists or objects inside each other"
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            if isinstance(item, str) and item.isascii():
                continue  # most of them
            if wrong := fault(item, finite=finite, depth=depth - 1):
                return wrong
    elif isinstance(value, str):
        return None if value.isascii() else _fault_of_text(value)
    elif isinstance(value, float):
        return f"it has the number {value}" if finite and not math.isfinite(value) else None
    elif isinstance(value, int) and abs(value) >= 1 << LONG:
        return f"it has a whole number of more than {LONG} bits"
    return None


def refused(error: ValidationError) -> str:
    """Write the first reason for which data are refused, such as "spec.seed: field required"."""
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{shortened('.'.join(map(str, first['loc'])))}: {first['msg'].lower()}"


def _fault_of_text(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it has half of a character (a lone surrogate)"
    return None

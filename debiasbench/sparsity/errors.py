"""What can be wrong with a request for sparsity; every message says the way out."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class SparsityError(ValueError):
    """A request that cannot be met, or a state that does not fit; nothing was changed."""


class SparsityTooHigh(SparsityError):  # noqa: N818 - it says what is wrong
    """A density at which some layer would keep fewer weights than it must."""


class NonFiniteGradient(SparsityError):  # noqa: N818 - it says what is wrong
    """A gradient that an update should rank is NaN or infinite."""


class NotAttached(SparsityError):  # noqa: N818 - it says what is wrong
    """Weights off the mask were moved by something that this sparse training does not follow."""


def unknown(what: str, name: object, known: Iterable[str]) -> SparsityError:
    """Say that there is no such name, and which is nearest."""
    names = list(known)
    near = get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return SparsityError(f"Unknown {what} {name!r}.{hint} Available: {', '.join(names)}")

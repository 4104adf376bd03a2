"""Errors of the sparsity library; every message tells what to do."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class SparsityError(ValueError):
    """A request that cannot be met, or a state that does not fit; nothing was changed."""


class SparsityTooHigh(SparsityError):  # noqa: N818 - the name is the problem
    """A density at which some layer would keep fewer weights than it must."""


class NonFiniteGradient(SparsityError):  # noqa: N818 - the name is the problem
    """A NaN or infinite gradient, which an update cannot rank."""


class NotAttached(SparsityError):  # noqa: N818 - the name is the problem
    """Inactive weights that are not 0: something else than this sparse training changed them."""


class CannotCompact(SparsityError):  # noqa: N818 - the name is the problem
    """A network that cannot be traced, or that computes something else without dead channels."""


def unknown(kind: str, name: object, known: Iterable[str]) -> SparsityError:
    """Return an error that names the unknown `name`, the nearest known name, and all of them."""
    names = list(known)
    near = get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return SparsityError(f"Unknown {kind} {name!r}.{hint} Available: {', '.join(names)}")

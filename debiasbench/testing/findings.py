"""What checks say of spaces and of steps that cannot be replayed."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable


def check_space(check: Callable[[], object]) -> None:
    """Raise `AssertionError` if a search space is not within its bounds."""
    try:
        check()
    except OptionError as error:
        raise AssertionError(str(error)) from error


def warn_slow(owner: str, reason: str) -> None:
    """Warn that a GPU cannot replay steps, and say why."""
    warnings.warn(
        f"{owner}: an NVIDIA GPU cannot replay its training steps as a graph, which makes small "
        f"networks several times slower ({reason})",
        stacklevel=3,
    )

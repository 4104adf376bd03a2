"""The values that a search tries for an option: a range or a list, declared beside the option."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from debiasbench.common.canonical import Strict
from debiasbench.common.errors import OptionError
from debiasbench.common.wording import shown

DIGITS = 4  # of a number that is drawn, so that it is the same on machines whose log differs

Kind = Literal["log", "uniform", "choice"]


@dataclass(frozen=True)
class Space(Strict):
    """The values that a search tries for one option.

    `values`: the two ends of a range, or the choices. `whole`: numbers of the range are rounded to
    whole ones, since the option has no others.
    """

    kind: Kind
    values: tuple[Any, ...]
    whole: bool = False

    def at(self, place: float) -> object:
        """Return the value at a place in [0, 1)."""
        if self.kind == "choice":
            return self.values[int(place * len(self.values))]
        low, high = self.values
        if self.kind == "log":
            number = math.exp(math.log(low) + place * (math.log(high) - math.log(low)))
        else:
            number = low + place * (high - low)
        return self.number(number)

    def number(self, value: float) -> float:
        """Return the number of a range that is nearest to a value: whole, or of few digits."""
        low, high = map(float, self.values)
        if self.whole:
            return round(min(max(value, low), high))
        return min(max(float(f"{value:.{DIGITS}g}"), low), high)

    def for_option(self, *, whole: bool) -> Space:
        """Return the space of an option that has only whole numbers, or any."""
        return replace(self, whole=whole and self.kind != "choice")

    def __str__(self) -> str:
        inner = ", ".join("none" if value is None else f"{value}" for value in self.values)
        return f"{self.kind}({inner})"


def log(low: float, high: float) -> Space:
    """Search an option from `low` to `high`, with equally many trials in each order of magnitude.

    For an option of whole numbers, values are rounded.
    """
    _check_range("log", low, high)
    if low <= 0:
        raise OptionError(f"search=log({low}, {high}): the ends must be above 0")
    return Space("log", (low, high))


def uniform(low: float, high: float) -> Space:
    """Search an option evenly from `low` to `high`; whole numbers are rounded."""
    _check_range("uniform", low, high)
    return Space("uniform", (low, high))


def choice(*values: object) -> Space:
    """Search an option among these values; the default need not be one of them."""
    written = f"search=choice({', '.join(map(shown, values))})"
    if len(values) < 2:
        raise OptionError(f"{written}: give two values or more")
    if any(value in values[:i] for i, value in enumerate(values)):
        raise OptionError(f"{written}: a value occurs twice")
    return Space("choice", values)


def _check_range(kind: str, low: object, high: object) -> None:
    for end in (low, high):
        if isinstance(end, bool) or not isinstance(end, (int, float)) or not math.isfinite(end):
            raise OptionError(f"search={kind}({shown(low)}, {shown(high)}): give two numbers")
    if not low < high:  # type: ignore[operator]
        raise OptionError(f"search={kind}({low}, {high}): the first end must be below the second")

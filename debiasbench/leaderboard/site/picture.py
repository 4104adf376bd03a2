"""Small pictures in cells: a dot with its interval, and the floor of a worst group."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Iterable

WIDTH, HEIGHT, MARGIN = 240, 32, 12  # units of the picture; whole numbers keep pages small
STEP = 0.05  # accuracies between two possible ends of a scale


@dataclass(frozen=True)
class Scale:
    """The range of accuracies that the pictures of a column share."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Iterable[float]) -> Scale:
        """Return a scale that holds all values, NaN apart, with ends at multiples of `STEP`."""
        known = [min(max(v, 0.0), 1.0) for v in values if not math.isnan(v)] or [0.0, 1.0]
        low = math.floor(min(known) / STEP + 1e-9) * STEP
        high = math.ceil(max(known) / STEP - 1e-9) * STEP
        return cls(low, high if high > low else low + STEP)

    def place(self, value: float) -> int:
        """Return the horizontal place of an accuracy."""
        part = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(MARGIN + part * (WIDTH - 2 * MARGIN))

    def axis(self) -> Markup:
        """Draw the ends of the scale, for the head of a column."""
        low, high = (f"{100 * end:.0f}" for end in (self.low, self.high))
        return Markup(
            '<svg class="dot axis" viewBox="0 0 240 32" aria-hidden="true">'
            '<path d="M12 8v8H228V8"/><text x="2" y="31">{}</text>'
            '<text x="238" y="31" class="end">{}</text></svg>'
        ).format(low, high)

    def dot(
        self, value: float, low: float, high: float, label: str, floor: float = math.nan
    ) -> Markup:
        """Draw an accuracy as a dot, its interval as a bar and a floor as a tick.

        `label`: what a screen reader says. Empty for NaN; bar and tick are left out for NaN.
        """
        if math.isnan(value):
            return Markup()
        bar = tick = Markup()
        if not math.isnan(low):
            bar = Markup('<path d="M{} 16H{}"/>').format(self.place(low), self.place(high))
        if not math.isnan(floor):
            tick = Markup('<path class="floor" d="M{} 4V28"/>').format(self.place(floor))
        return Markup(
            '<svg class="dot" viewBox="0 0 240 32" role="img" aria-label="{}">{}{}'
            '<circle cx="{}" cy="16" r="6"/></svg>'
        ).format(label, bar, tick, self.place(value))

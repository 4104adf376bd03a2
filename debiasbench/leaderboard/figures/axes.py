"""Ranges and ticks of axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise

from debiasbench.leaderboard.figures.figure import Axis, Tick

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)  # of a linear axis, times a power of 10
PARTS = ((1.0, 2.0, 5.0), tuple(map(float, range(1, 10))))  # of a decade of a log axis
CLOSE = 0.1  # of an axis, below which the texts of two ticks may touch
AROUND = 0.08  # of the range of values, left free on both sides


def accuracy_axis(label: str, values: Iterable[float]) -> Axis:
    """Return the axis of accuracies, whose ticks are in percent; NaN among the values is ignored.

    It begins and ends with a tick, and does not leave [0, 1].
    """
    known = [value for value in values if not math.isnan(value)]
    low, high = max(min(known), 0.0), min(max(known), 1.0)
    room = max(AROUND * (high - low), 0.01)
    step = _step(high - low + 2 * room, 5)
    low = max(math.floor((low - room) / step + 1e-9) * step, 0.0)
    high = min(math.ceil((high + room) / step - 1e-9) * step, 1.0)
    ticks = _multiples(low, high, step)
    return Axis(label, low, high, tuple(Tick(at, f"{100 * at:.4g}") for at in ticks))


def log_axis(
    label: str, values: Iterable[float], form: Callable[[float], str] = "{:g}".format
) -> Axis:
    """Return the logarithmic axis of positive values, such as costs."""
    known = list(values)
    low, high = min(known), max(known)
    room = max((high / low) ** AROUND, 1.6 if low == high else 1.1)
    low, high = low / room, high * room
    ticks: list[float] = []
    for parts in PARTS:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [part * 10.0**decade for decade in decades for part in parts]
        ticks = [at for at in found if low <= at <= high]
        if len(ticks) >= 3:
            break
    else:  # a small part of a decade: the ticks of a linear axis are as good
        ticks = _multiples(low, high, _step(high - low, 4))
    thin = -(-len(ticks) // 8)
    return Axis(label, low, high, tuple(Tick(at, form(at)) for at in ticks[::thin]), log=True)


def density_axis(label: str, densities: Iterable[float]) -> Axis:
    """Return the logarithmic axis of densities; its ticks are at them, if there is room for all.

    Densities that are equal as written have one tick.
    """
    known = sorted(densities)
    axis = log_axis(label, known)
    ticks = tuple({f"{at:.2g}": Tick(at, f"{at:.2g}") for at in known}.values())
    places = [axis.place(tick.at) for tick in ticks]
    if any(right - left < CLOSE for left, right in pairwise(places)):
        return axis
    return replace(axis, ticks=ticks)


def _step(extent: float, most: int) -> float:
    """Return a round step of which about `most` fit into an extent."""
    power = 10.0 ** math.floor(math.log10(extent / most))
    return next(step * power for step in STEPS if extent / (step * power) <= most)


def _multiples(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]

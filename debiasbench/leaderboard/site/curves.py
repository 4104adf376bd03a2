"""Curves of a training: a picture of the validation accuracies, and one of the losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from debiasbench.leaderboard.cells import words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from debiasbench.records.record import Record

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 48, 208, 12, 36  # room for scales, and for names at the ends of lines
LINE = 14  # least distance of two names
# those that rules select by, and what shows the bias; others would hide these
SHOWN = ("val_average", "val_unbiased", "val_worst_group", "val_conflict", "val_aligned")


@dataclass(frozen=True)
class Drawing:
    """A picture with a title, and words that say the same for readers who cannot see it."""

    title: str
    picture: Markup


def drawings(record: Record) -> list[Drawing]:
    """Draw the accuracies and the losses of each stage that has more than one epoch."""
    made = []
    last = len(record.curves) - 1
    for i, curves in enumerate(record.curves):
        selected = _selected(record) if i == last else {}
        accuracies = _distinct({n: curves.values[n] for n in SHOWN if n in curves.values})
        losses = {n: v for n, v in curves.values.items() if n in {"loss", "val_loss"}}
        for title, lines, unit in (
            ("Validation accuracy, %", accuracies, 100.0),
            ("Loss", losses, 1.0),
        ):
            if any(len(values) > 1 for values in lines.values()):
                name = f"{title}, stage {curves.stage}"
                made.append(Drawing(name, _draw(name, lines, unit, selected)))
    return made


def _selected(record: Record) -> dict[int, str]:
    """Return the epochs that selection rules kept, with the names of the rules."""
    found: dict[int, list[str]] = {}
    for rule, outcome in record.outcomes.items():
        if outcome.epoch is not None:
            found.setdefault(outcome.epoch, []).append(rule)
    return {epoch: ", ".join(rules) for epoch, rules in sorted(found.items())}


def _distinct(lines: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """Put equal lines together under one name: on a balanced split several metrics are equal."""
    found: dict[tuple[float, ...], list[str]] = {}
    for name, values in lines.items():
        found.setdefault(tuple(values), []).append(words(name.removeprefix("val_")))
    return {" = ".join(names): values for values, names in found.items()}


def _draw(
    title: str, lines: Mapping[str, Sequence[float]], unit: float, selected: Mapping[int, str]
) -> Markup:
    finite = [unit * v for values in lines.values() for v in values if math.isfinite(v)]
    epochs = max(len(values) for values in lines.values())
    low, high, step = _scale(finite, fixed=unit == 100.0)

    def x(epoch: int) -> float:
        return LEFT + (epoch - 1) / max(epochs - 1, 1) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [_frame(low, high, step, y), _epochs(epochs, x)]
    for epoch, rules in selected.items():
        if 1 <= epoch <= epochs:
            parts.append(
                Markup(
                    '<path class="mark" d="M{:.1f} {}V{}"><title>epoch {}: {}</title></path>'
                ).format(x(epoch), TOP, HEIGHT - BOTTOM, epoch, rules)
            )
    ends = []
    for i, (name, values) in enumerate(lines.items()):
        points = [(x(e), y(unit * v)) for e, v in enumerate(values, 1) if math.isfinite(v)]
        if not points:
            continue
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
        said = f"{name}: {unit * values[0]:.3g} after the first epoch, {unit * values[-1]:.3g} last"
        parts.append(
            Markup('<path class="line c{}" d="M{}"><title>{}</title></path>').format(i, path, said)
        )
        ends.append((points[-1][1], i, name))
    parts += _names(ends)
    said = "; ".join(
        f"{name} from {unit * values[0]:.3g} to {unit * values[-1]:.3g}"
        for name, values in lines.items()
    )
    return Markup(
        '<svg class="figure" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, HEIGHT, f"{title} by epoch: {said}", Markup().join(parts))


def _scale(values: Sequence[float], *, fixed: bool) -> tuple[float, float, float]:
    """Return the ends of the vertical scale, and the distance of its lines."""
    if fixed:
        return 0.0, 100.0, 25.0
    high = max([*values, 1e-9])
    step = 10 ** math.floor(math.log10(high))
    step = next(s for s in (step / 5, step / 2, step, 2 * step, 5 * step) if high / s <= 5)
    return 0.0, step * math.ceil(high / step - 1e-9), step


def _frame(low: float, high: float, step: float, y: Callable[[float], float]) -> Markup:
    parts = []
    for i in range(round((high - low) / step) + 1):
        value = low + i * step
        place = y(value)
        parts.append(
            Markup(
                '<path class="grid" d="M{} {:.1f}H{}"/>'
                '<text x="{}" y="{:.1f}" class="end">{:g}</text>'
            ).format(LEFT, place, WIDTH - RIGHT, LEFT - 6, place + 4, round(value, 10))
        )
    return Markup().join(parts)


def _epochs(epochs: int, x: Callable[[int], float]) -> Markup:
    step = next(s for k in range(9) for s in (10**k, 2 * 10**k, 5 * 10**k) if epochs / s <= 8)
    marks = dict.fromkeys([1, *range(step, epochs + 1, step)])
    parts = [
        Markup('<text x="{:.1f}" y="{}" class="mid">{}</text>').format(
            x(epoch),
            HEIGHT - BOTTOM + 16,
            epoch,
        )
        for epoch in marks
    ]
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(
        Markup('<text x="{:g}" y="{}" class="mid">epoch</text>').format(middle, HEIGHT - 4)
    )
    return Markup().join(parts)


def _names(ends: list[tuple[float, int, str]]) -> list[Markup]:
    """Write names at the ends of lines, moved apart where they would overlap."""
    ends.sort()
    made, before = [], -math.inf
    room = HEIGHT - BOTTOM - LINE * (len(ends) - 1)
    for n, (place, i, name) in enumerate(ends):
        before = max(min(place, room + LINE * n), before + LINE)
        made.append(
            Markup('<text x="{}" y="{:.1f}" class="name t{}">{}</text>').format(
                WIDTH - RIGHT + 8, before + 4, i, name
            )
        )
    return made

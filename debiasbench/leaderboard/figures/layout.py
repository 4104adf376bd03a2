"""Where the parts of a figure are: margins, and labels that do not hide each other.

Both writers use it, so that a figure looks the same on the page and in a paper. Lengths are in
pixels (of 1/96 inch) from the upper left corner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from debiasbench.common.wording import printable
from debiasbench.leaderboard.figures.figure import (
    Dots,
    Heading,
    Level,
    Line,
    Point,
    Steps,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from debiasbench.leaderboard.figures.figure import Figure

SIZE = 12.0  # of letters
GAP = 15.0  # between the middles of two labels
ABOVE, BELOW, BESIDE = 12.0, 22.0, 8.0  # room around the area: above, for ticks, around texts
EDGE = 4.0  # room between the edge of the picture and text
WIDEST = 230.0  # of names beside the area
FAR = 9.0  # from a dot, beyond which a line leads to its name
LOOKS = ("full", "hollow", "faint")  # in the order in which dots get their names
_NARROW, _WIDE = "fijlrt.,:;|'()[] -", "mwMW%@—–"


@dataclass(frozen=True)
class Label:
    """A text at (x, y), which is the middle of its height. `anchor`: which end of it is at x."""

    x: float
    y: float
    text: str
    anchor: str  # "start", "middle" or "end"
    series: int | None
    leader: tuple[float, float] | None = None  # where a line to what it names ends
    faint: bool = False


@dataclass(frozen=True)
class Layout:
    """The place of everything in a figure."""

    figure: Figure
    left: float
    top: float
    width: float  # of the whole picture
    height: float
    labels: tuple[Label, ...]
    keys: tuple[tuple[float, float], ...]  # the left end and the middle of each key

    def x(self, value: float) -> float:
        """Return the place of an x."""
        return self.left + self.figure.width * self.figure.x.place(value)

    def y(self, value: float) -> float:
        """Return the place of a y."""
        return self.top + self.figure.height * (1 - self.figure.y.place(value))

    @property
    def right(self) -> float:
        """The right end of the area."""
        return self.left + self.figure.width

    @property
    def bottom(self) -> float:
        """The lower end of the area."""
        return self.top + self.figure.height


def layout(figure: Figure) -> Layout:
    """Arrange a figure."""
    names = [length(cut(tick.text)) for tick in figure.y.ticks]
    left = max(names, default=0.0) + BESIDE + 2 + (20 if figure.y.label else 0)
    beside = [cut(m.name) for m in figure.marks if isinstance(m, Line | Level) and m.name]
    right = max([0.0, *map(length, beside)])
    last = figure.x.ticks[-1].text if figure.x.ticks else ""
    right = right + 14 if right else length(last) / 2 + 6
    words = [length(m.text) + EDGE for m in figure.marks if isinstance(m, Heading)]
    width = max([left + figure.width + right, *words])
    below = ABOVE + figure.height + BELOW + (20 if figure.x.label else 0)
    keys, lines = _keys(figure, left, width, below + (6 if figure.keys else 0))
    empty = Layout(figure, left, ABOVE, width, below + GAP * lines + (12 if lines else 6), (), keys)
    labels = (*_at_ends(empty), *_beside_dots(empty))
    return Layout(figure, left, ABOVE, width, empty.height, labels, keys)


def length(text: str, size: float = SIZE) -> float:
    """Estimate the length of a text, too long rather than too short."""
    parts = (
        0.36 if c in _NARROW else 0.95 if c in _WIDE else 0.72 if c.isupper() else 0.62
        for c in text
    )
    wide = sum(0.5 for c in text if ord(c) > 0x2E80)  # such as Chinese
    return size * (sum(parts) + wide)


def cut(text: str, most: float = WIDEST) -> str:
    """Return a text on one line that is not longer than `most`; "…" replaces the rest."""
    line = printable(" ".join(text.split()))
    if length(line) <= most:
        return line
    while line and length(line + "…") > most:
        line = line[:-1]
    return line.rstrip() + "…"


def spread(wanted: Sequence[float], low: float, high: float, gap: float = GAP) -> list[float]:
    """Move heights apart so that neighbours are `gap` apart, within `low` and `high` if they fit.

    Heights that are pushed together stay around the middle of where they wanted to be.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[list[float]] = []  # of neighbours that touch: sum of wanted starts, and how many
    for i in order:
        blocks.append([wanted[i], 1])
        while len(blocks) > 1 and _start(blocks[-1], gap) < _start(blocks[-2], gap) + (
            blocks[-2][1] * gap
        ):
            last = blocks.pop()
            blocks[-1] = [blocks[-1][0] + last[0], blocks[-1][1] + last[1]]
    placed: list[float] = []
    for block in blocks:
        placed += [_start(block, gap) + k * gap for k in range(int(block[1]))]
    # then into the range, from its lower end upwards and back
    for k in reversed(range(len(placed))):
        placed[k] = min(placed[k], high if k + 1 == len(placed) else placed[k + 1] - gap)
    for k in range(len(placed)):
        placed[k] = max(placed[k], low if k == 0 else placed[k - 1] + gap)
    result = [0.0] * len(wanted)
    for i, height in zip(order, placed, strict=True):
        result[i] = height
    return result


def _start(block: Sequence[float], gap: float) -> float:
    return block[0] / block[1] - gap * (block[1] - 1) / 2


def leader(label: Label) -> tuple[float, float, float, float] | None:
    """Return the line from a dot or from the end of a line to its name; None if it is close."""
    if label.leader is None:
        return None
    x, y = label.leader
    side = 1 if label.anchor == "start" else -1
    if abs(label.x - x) < 12 and abs(label.y - y) < 3:
        return None
    return x + 2 * side, y, label.x - 3 * side, label.y


def _at_ends(at: Layout) -> list[Label]:
    """Place the names of lines and levels to the right of the area."""
    named = [m for m in at.figure.marks if isinstance(m, Line | Level) and m.name]
    ends = [
        (at.x(m.points[-1].x), at.y(m.points[-1].y))
        if isinstance(m, Line)
        else (at.right, at.y(m.y))
        for m in named
    ]
    heights = spread([y for _, y in ends], at.top, at.bottom)
    return [
        Label(at.right + 10, height, cut(m.name), "start", m.series, leader=end)
        for m, end, height in zip(named, ends, heights, strict=True)
    ]


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def over(self, other: _Box) -> float:
        """Return the area that two boxes share."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0.0) * max(high, 0.0)


def _beside_dots(at: Layout) -> list[Label]:
    """Place the names of dots where they hide least of the dots, the lines and other names."""
    dots = [(p, m) for m in at.figure.marks if isinstance(m, Dots) for p in m.points]
    taken = [_around(at.x(p.x), at.y(p.y), 6, 6) for p, _ in dots]
    taken += [
        _Box(at.x(p.x) - 1, at.y(p.high), at.x(p.x) + 1, at.y(p.low))
        for p, _ in dots
        if p.low <= p.high
    ]
    for mark in at.figure.marks:
        if isinstance(mark, Steps):
            taken += _of_steps(at, mark)
    outside = [
        _Box(-1e4, -1e4, at.left, 1e4),
        _Box(at.right, -1e4, 1e4, 1e4),
        _Box(-1e4, -1e4, 1e4, at.top),
        _Box(-1e4, at.bottom, 1e4, 1e4),
    ]
    taken += [
        _Box(at.left, at.y(m.y) - 1, at.right, at.y(m.y) + 1)
        for m in at.figure.marks
        if isinstance(m, Level) and m.name
    ]
    labels = []
    named = [(p, m) for p, m in dots if p.name]
    for point, mark in sorted(named, key=lambda pair: LOOKS.index(pair[1].look)):
        places = list(_places(at, point))
        around = _Box(
            min(box.left for _, box in places),
            min(box.top for _, box in places),
            max(box.right for _, box in places),
            max(box.bottom for _, box in places),
        )
        near = [box for box in taken if around.over(box) > 0]  # with many dots, a few of them
        least = math.inf
        for place, own in places:
            hidden = sum(own.over(other) for other in near)
            hidden += 10 * sum(own.over(other) for other in outside)
            if hidden < least:
                least, (x, y, anchor), box = hidden, place, own
            if hidden == 0:  # no later place is better
                break
        taken.append(box)
        dot = at.x(point.x), at.y(point.y)
        far = abs(y - dot[1]) > FAR and anchor != "middle"
        leader = dot if far else None
        faint = mark.look == "faint"
        labels.append(Label(x, y, cut(point.name), anchor, mark.series, leader, faint))
    return labels


def _around(x: float, y: float, wide: float, high: float) -> _Box:
    return _Box(x - wide, y - high, x + wide, y + high)


def _places(at: Layout, point: Point) -> Iterable[tuple[tuple[float, float, str], _Box]]:
    """Return the places for the name of a point, the best ones first."""
    x, y, long = at.x(point.x), at.y(point.y), length(cut(point.name))
    for far in (0.0, 8.0, 16.0):
        for up in (0.0, -8.0 - far, 8.0 + far):
            yield (x + 9, y + up, "start"), _Box(x + 9, y + up - 7, x + 9 + long, y + up + 7)
            yield (x - 9, y + up, "end"), _Box(x - 9 - long, y + up - 7, x - 9, y + up + 7)
        for up in (-15.0 - far, 15.0 + far):
            half = long / 2
            yield (x, y + up, "middle"), _Box(x - half, y + up - 7, x + half, y + up + 7)


def _of_steps(at: Layout, mark: Steps) -> list[_Box]:
    boxes = []
    places = [(at.x(x), at.y(y)) for x, y in mark.corners]
    for (x, y), (later, above) in pairwise(places):
        boxes.append(_Box(x, y - 1, later, y + 1))
        boxes.append(_Box(later - 1, min(y, above), later + 1, max(y, above)))
    if places:
        boxes.append(_Box(places[-1][0], places[-1][1] - 1, at.right, places[-1][1] + 1))
    return boxes


def _keys(
    figure: Figure, left: float, width: float, top: float
) -> tuple[tuple[tuple[float, float], ...], int]:
    """Place the keys below the figure, in as many lines as they need."""
    places, x, line = [], left, 0
    for key in figure.keys:
        long = 20 + length(key.text)
        if x > left and x + long > width:
            x, line = left, line + 1
        places.append((x, top + GAP * line + GAP / 2))
        x += long + 16
    return tuple(places), line + 1 if places else 0

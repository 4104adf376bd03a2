"""A figure as SVG for a page: text as text, and classes instead of styles, for a strict CSP.

The colours of the classes are in `STYLE`, which the page has in its style sheet.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from debiasbench.common.wording import printable
from debiasbench.leaderboard.figures import colours
from debiasbench.leaderboard.figures.figure import (
    Bar,
    Dots,
    Heading,
    Level,
    Line,
    Square,
    Steps,
)
from debiasbench.leaderboard.figures.layout import BESIDE, EDGE, cut, layout, leader

if TYPE_CHECKING:
    from debiasbench.leaderboard.figures.figure import Figure, Key, Point
    from debiasbench.leaderboard.figures.layout import Label, Layout


def svg(figure: Figure) -> str:
    """Write a figure as an SVG element, on one line for each part.

    It has the role of an image, and a label that says its numbers. Marks have titles, which
    browsers show beside the pointer. There are no ids, so a page may hold any number of figures.
    """
    at = layout(figure)
    size = f'width="{_n(at.width)}" height="{_n(at.height)}"'
    opened = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" {size} '
        f'viewBox="0 0 {_n(at.width)} {_n(at.height)}" '
        f'aria-label="{_text(figure.description)}">'
    )
    parts = [opened, *_axes(at)]
    for kind, write in WRITERS.items():
        for mark in figure.marks:
            if isinstance(mark, kind):
                parts += write(mark, at)
    parts += [_label(label) for label in at.labels]
    for key, place in zip(figure.keys, at.keys, strict=True):
        parts += _key(key, *place)
    return "\n".join([*parts, "</svg>", ""])


def _axes(at: Layout) -> Iterable[str]:
    figure = at.figure
    for tick in figure.x.ticks:
        x = at.x(tick.at)
        yield _line("grid", x, at.top, x, at.bottom)
        yield _written("tick", x, at.bottom + 14, tick.text, "middle")
    for tick in figure.y.ticks:
        y = at.y(tick.at)
        yield _line("grid", at.left, y, at.right, y)
        yield _written("tick", at.left - BESIDE, y, cut(tick.text), "end", full=tick.text)
    if figure.x.label:
        yield _written("axis", (at.left + at.right) / 2, at.bottom + 33, figure.x.label, "middle")
    if figure.y.label:
        x, y = 10.0, (at.top + at.bottom) / 2
        turned = f' transform="rotate(-90 {_n(x)} {_n(y)})"'
        yield _written("axis", x, y, figure.y.label, "middle", more=turned)


def _of_line(mark: Line, at: Layout) -> Iterable[str]:
    known = [p for p in mark.points if not math.isnan(p.low)]
    series = _series(mark.series)
    if len(known) > 1:
        edge = [(at.x(p.x), at.y(p.high)) for p in known]
        edge += [(at.x(p.x), at.y(p.low)) for p in reversed(known)]
        yield f'<path class="band {series}" d="{_path(edge)}Z"/>'
    elif known:
        yield _interval(known[0], series, at)
    places = [(at.x(p.x), at.y(p.y)) for p in mark.points]
    if len(places) > 1:
        yield f'<path class="line {series}" d="{_path(places)}"/>'
    for point in mark.points:
        yield _dot(at.x(point.x), at.y(point.y), mark.series, "full", point.text)


def _of_level(mark: Level, at: Layout) -> Iterable[str]:
    series = _series(mark.series)
    if mark.band and not math.isnan(mark.low):
        high, low = at.y(mark.high), at.y(mark.low)
        yield (
            f'<rect class="band {series}" x="{_n(at.left)}" y="{_n(high)}" '
            f'width="{_n(at.figure.width)}" height="{_n(low - high)}"/>'
        )
    y = at.y(mark.y)
    yield _line(f"line {series}", at.left, y, at.right, y, mark.text)


def _of_steps(mark: Steps, at: Layout) -> Iterable[str]:
    places: list[tuple[float, float]] = []
    for x, y in mark.corners:
        if places:
            places.append((at.x(x), places[-1][1]))
        places.append((at.x(x), at.y(y)))
    places.append((at.right, places[-1][1]))
    yield f'<path class="front {_series(mark.series)}" d="{_path(places)}"/>'


def _of_dots(mark: Dots, at: Layout) -> Iterable[str]:
    for point in mark.points:
        if not math.isnan(point.low):
            yield _interval(point, f"{_series(mark.series)} {mark.look}", at)
        yield _dot(at.x(point.x), at.y(point.y), mark.series, mark.look, point.text)


def _of_heading(mark: Heading, at: Layout) -> Iterable[str]:
    return [_written("heading", EDGE, at.y(mark.y), mark.text, "start")]


def _of_bar(mark: Bar, at: Layout) -> Iterable[str]:
    y, strong = at.y(mark.y), "bar strong" if mark.strong else "bar"
    yield _line(strong, at.x(mark.low), y, at.x(mark.high), y, mark.text)
    yield (
        f'<circle class="{strong}" cx="{_n(at.x(mark.at))}" cy="{_n(y)}" r="4.5">'
        f"{_title(mark.text)}</circle>"
    )


def _of_square(mark: Square, at: Layout) -> Iterable[str]:
    left, right = at.x(mark.x - 0.5), at.x(mark.x + 0.5)
    top, bottom = at.y(mark.y + 0.5), at.y(mark.y - 0.5)
    known = not math.isnan(mark.value)
    shade = f"h{colours.heat(mark.value)}" if known else "none"
    yield f'<g class="square {shade}">{_title(mark.text)}'
    yield (
        f'<rect x="{_n(left)}" y="{_n(top)}" width="{_n(right - left)}" '
        f'height="{_n(bottom - top)}"/>'
    )
    if mark.few:
        d = "".join(
            f"M{_n(x)} {_n(y)}L{_n(u)} {_n(v)}" for x, y, u, v in hatching(left, top, right, bottom)
        )
        yield f'<path class="hatch" d="{d}"/>'
    x, y = (left + right) / 2, (top + bottom) / 2
    if known:
        yield _written(
            "value aligned" if mark.aligned else "value",
            x,
            y - 6,
            f"{100 * mark.value:.1f}",
            "middle",
        )
    yield _written("samples", x, y + 8, mark.counted, "middle")
    yield "</g>"


def hatching(
    left: float, top: float, right: float, bottom: float, gap: float = 7.0
) -> list[tuple[float, float, float, float]]:
    """Return diagonal lines (x, y) to (u, v) that fill a rectangle, from its lower left."""
    wide, high = right - left, bottom - top
    lines = []
    for k in range(1, int((wide + high) / gap) + 1):
        far = k * gap  # x + y of the line, from the upper left corner
        if far >= wide + high:
            break
        lines.append(
            (
                left + max(0.0, far - high),
                top + min(far, high),
                left + min(far, wide),
                top + max(0.0, far - wide),
            )
        )
    return lines


WRITERS: dict[type, Callable[[Any, Layout], Iterable[str]]] = {
    Level: _of_level,
    Line: _of_line,
    Steps: _of_steps,
    Bar: _of_bar,
    Heading: _of_heading,
    Square: _of_square,
    Dots: _of_dots,
}
"""Kind of mark -> what writes it, from the background to the foreground."""


def _interval(point: Point, classes: str, at: Layout) -> str:
    x = at.x(point.x)
    return _line(f"interval {classes}", x, at.y(point.low), x, at.y(point.high))


def _dot(x: float, y: float, series: int, look: str, said: str) -> str:
    shape, r = colours.marker(series), 4.0 if look != "faint" else 3.0
    classes = f"dot {look} {_series(series)}"
    title = _title(said)
    if shape == "circle":
        return f'<circle class="{classes}" cx="{_n(x)}" cy="{_n(y)}" r="{_n(r)}">{title}</circle>'
    corners = {
        "square": [(-r, -r), (r, -r), (r, r), (-r, r)],
        "triangle": [(0, -1.2 * r), (1.2 * r, r), (-1.2 * r, r)],
        "diamond": [(0, -1.3 * r), (1.3 * r, 0), (0, 1.3 * r), (-1.3 * r, 0)],
    }[shape]
    path = _path([(x + dx, y + dy) for dx, dy in corners])
    return f'<path class="{classes}" d="{path}Z">{title}</path>'


def _label(label: Label) -> str:
    faint = " faint" if label.faint else ""
    text = _written(f"name{faint}", label.x, label.y, label.text, label.anchor)
    if (ends := leader(label)) is None:
        return text
    return _line(f"leader {_series(label.series)}", *ends) + text


def _key(key: Key, x: float, y: float) -> Iterable[str]:
    if key.look == "hatch":
        yield (
            f'<rect class="outline" x="{_n(x)}" y="{_n(y - 5)}" width="12" height="10"/>'
            f'<path class="hatch" d="M{_n(x)} {_n(y + 5)}l10 -10M{_n(x + 4)} {_n(y + 5)}l8 -8"/>'
        )
    elif key.series is None:
        yield f'<circle class="dot {key.look} ink" cx="{_n(x + 6)}" cy="{_n(y)}" r="4"/>'
    else:
        yield _dot(x + 6, y, key.series, key.look, "")
    yield _written("key", x + 16, y, key.text, "start")


def _written(
    classes: str, x: float, y: float, text: str, anchor: str, *, more: str = "", full: str = ""
) -> str:
    """Write text whose middle height is at y; the shift is that of a letter of 12 pixels."""
    title = _title(full) if full and full != text else ""
    return (
        f'<text class="{classes}" x="{_n(x)}" y="{_n(y)}" dy="0.35em" '
        f'text-anchor="{anchor}"{more}>{title}{_text(text)}</text>'
    )


def _line(classes: str, x: float, y: float, u: float, v: float, said: str = "") -> str:
    opened = f'<line class="{classes}" x1="{_n(x)}" y1="{_n(y)}" x2="{_n(u)}" y2="{_n(v)}"'
    return f"{opened}>{_title(said)}</line>" if said else f"{opened}/>"


def _title(text: str) -> str:
    return f"<title>{_text(text)}</title>" if text else ""


def _series(series: int | None) -> str:
    return "back" if series is None else f"s{series % len(colours.SERIES)}"


def _path(places: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in places)


def _text(text: str) -> str:
    return html.escape(printable(" ".join(text.split())))


def _n(value: float) -> str:
    """Write a length, in tenths of a pixel; 0.0 is added because of -0."""
    return f"{round(value, 1) + 0.0:g}"


def _style() -> str:
    """Return the style sheet of all figures."""
    lines = [
        ".chart{color-scheme:inherit;font:12px system-ui,sans-serif;max-width:100%;height:auto}",
        f".chart text{{fill:light-dark({colours.INK},{colours.DARK_INK})}}",
        ".chart .tick,.chart .key,.chart .faint"
        f"{{--c:light-dark({colours.FAINT},{colours.DARK_FAINT})}}",
        ".chart .tick,.chart .key,.chart text.faint{fill:var(--c)}",
        ".chart .heading{font-style:italic}",
        f".chart .grid{{stroke:light-dark({colours.RULE},{colours.DARK_RULE})}}",
        ".chart .line,.chart .front{fill:none;stroke:var(--c);stroke-width:2}",
        ".chart .front{stroke-width:1.5;stroke-dasharray:4 3}",
        ".chart .band{fill:var(--c);fill-opacity:.15;stroke:none;pointer-events:none}",
        ".chart .interval{stroke:var(--c);stroke-width:1.5;stroke-opacity:.6}",
        ".chart .leader{stroke:var(--c);stroke-width:1;stroke-opacity:.5}",
        ".chart .dot{fill:var(--c);stroke:var(--c);stroke-width:1.5}",
        f".chart .dot.hollow{{fill:light-dark({colours.GROUND},{colours.DARK_GROUND})}}",
        f".chart .back{{--c:light-dark({colours.FAINT},{colours.DARK_FAINT})}}",
        ".chart .line.back{stroke-width:1;stroke-opacity:.5}",
        f".chart .dot.ink{{--c:light-dark({colours.INK},{colours.DARK_INK})}}",
        f".chart .bar{{stroke:light-dark({colours.FAINT},{colours.DARK_FAINT});stroke-width:5;"
        f"stroke-linecap:round;fill:light-dark({colours.FAINT},{colours.DARK_FAINT})}}",
        f".chart .bar.strong{{stroke:light-dark({colours.SERIES[0]},{colours.DARK[0]});"
        f"fill:light-dark({colours.SERIES[0]},{colours.DARK[0]})}}",
        ".chart line.bar{stroke-opacity:.35}",
        ".chart circle.bar,.chart circle.bar.strong{stroke:none}",
        ".chart .square rect{stroke:light-dark(#fff,#15171a)}",
        ".chart .square text{fill:#000}",
        ".chart .square .value{font-size:13px}",
        ".chart .square .aligned{font-weight:bold}",
        ".chart .square .samples{font-size:10px}",
        ".chart .hatch{fill:none;stroke:#000;stroke-opacity:.25}",
        f".chart .outline{{fill:none;stroke:light-dark({colours.FAINT},{colours.DARK_FAINT})}}",
        f".chart .square.none rect{{fill:light-dark({colours.RULE},{colours.DARK_RULE})}}",
        f".chart .square.none text{{fill:light-dark({colours.INK},{colours.DARK_INK})}}",
    ]
    for i, (light, dark) in enumerate(zip(colours.SERIES, colours.DARK, strict=True)):
        lines.append(f".chart .s{i}{{--c:light-dark({light},{dark})}}")
        if dash := colours.dash(i):
            lines.append(
                f".chart .line.s{i}{{stroke-dasharray:{' '.join(f'{d:g}' for d in dash)}}}"
            )
    for i, shade in enumerate(colours.HEAT):
        lines.append(f".chart .h{i} rect{{fill:{shade}}}")
    white = ",".join(f".chart .h{i} text" for i in colours.WHITE_TEXT)
    lines.append(f"{white}{{fill:#fff}}")
    white = ",".join(f".chart .h{i} .hatch" for i in colours.WHITE_TEXT)
    lines.append(f"{white}{{stroke:#fff}}")
    lines.append(
        ".chart .dot.faint,.chart .interval.faint{"
        f"--c:light-dark({colours.FAINT},{colours.DARK_FAINT})}}"
    )
    return "\n".join(lines) + "\n"


STYLE = _style()

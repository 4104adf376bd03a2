"""A figure by matplotlib, for papers: PDF, SVG or PNG with equal bytes for equal figures.

The settings of the user (matplotlibrc, styles) have no effect, and no window or global figure is
made. Names are never read as formulas.
"""

from __future__ import annotations

import io
import math
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import OptionError
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
from debiasbench.leaderboard.figures.layout import EDGE, cut, layout, leader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from debiasbench.leaderboard.figures.figure import Figure
    from debiasbench.leaderboard.figures.layout import Layout

FORMS = ("pdf", "svg", "png")
POINT = 0.75  # points of a pixel: letters of 12 pixels have 9 points
DPI = 300  # of PNG
SETTINGS: Any = {
    "font.family": ["DejaVu Sans"],  # matplotlib brings it, so it is everywhere the same
    "font.size": 9.0,
    "text.parse_math": False,
    "text.usetex": False,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.hashsalt": "debiasbench",
    "hatch.linewidth": 0.5,
}
UNDATED: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": "debiasbench"},
    "svg": {"Date": None, "Creator": "debiasbench"},
    "png": {"Software": None},
}
MARKERS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D"}


def plot(figure: Figure, form: str) -> bytes:
    """Return a figure as a file of one of `FORMS`; title and caption are in its metadata only.

    Raises `OptionError` without matplotlib, and for another form.
    """
    if form not in FORMS:
        raise OptionError(f"A figure cannot be written as {form!r}: use {', '.join(FORMS)}")
    with _settings():
        drawing = drawn(figure)
        out = io.BytesIO()
        described = "Subject" if form == "pdf" else "Description"
        words = {"Title": printable(figure.title), described: printable(figure.caption)}
        with warnings.catch_warnings():
            # a letter that the font does not have is drawn as a box
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            drawing.savefig(out, format=form, dpi=DPI, metadata=UNDATED[form] | words)
    return out.getvalue()


@contextmanager
def _settings() -> Iterator[None]:
    """Set matplotlib's own defaults and ours for a while."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise OptionError(
            'Figures need matplotlib, which is not installed: pip install "debiasbench[plot]"'
        ) from error
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        yield


def drawn(figure: Figure) -> Drawing:
    """Return a figure as one of matplotlib, whose axes have the numbers of the data."""
    from matplotlib.figure import Figure as Drawing

    at = layout(figure)
    drawing = Drawing(figsize=(at.width * POINT / 72, at.height * POINT / 72))
    axes = drawing.add_axes(
        (
            at.left / at.width,
            1 - at.bottom / at.height,
            figure.width / at.width,
            figure.height / at.height,
        )
    )
    _axes(axes, at)
    for kind, draw in DRAWERS.items():
        for mark in figure.marks:
            if isinstance(mark, kind):
                draw(mark, axes, at)
    _labels(drawing, at)
    _keys(drawing, at)
    return drawing


def _axes(axes: Axes, at: Layout) -> None:
    figure = at.figure
    if figure.x.log:
        axes.set_xscale("log")
    axes.set_xlim(figure.x.low, figure.x.high)
    axes.set_ylim(figure.y.low, figure.y.high)
    axes.minorticks_off()
    axes.set_xticks([t.at for t in figure.x.ticks], [cut(t.text) for t in figure.x.ticks])
    axes.set_yticks([t.at for t in figure.y.ticks], [cut(t.text) for t in figure.y.ticks])
    axes.tick_params(length=0, labelcolor=colours.FAINT, pad=4)
    axes.grid(color=colours.RULE, linewidth=0.75)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(figure.x.label, color=colours.INK, labelpad=4)
    if figure.y.label:
        middle = 1 - (at.top + at.bottom) / 2 / at.height
        axes.figure.text(
            10 / at.width,
            middle,
            figure.y.label,
            rotation=90,
            ha="center",
            va="center",
            color=colours.INK,
        )


def _line(mark: Line, axes: Axes, _at: Layout) -> None:
    known = [p for p in mark.points if not math.isnan(p.low)]
    own = colours.colour(mark.series)
    x = [p.x for p in known]
    axes.fill_between(
        x, [p.low for p in known], [p.high for p in known], color=own, alpha=0.15, linewidth=0
    )
    axes.plot(
        [p.x for p in mark.points],
        [p.y for p in mark.points],
        color=own,
        linewidth=1.5,
        dashes=_dashes(mark.series),
        marker=MARKERS[colours.marker(mark.series)],
        markersize=5.5,
        label=mark.name,
    )


def _level(mark: Level, axes: Axes, _at: Layout) -> None:
    if mark.series is None:
        axes.axhline(mark.y, color=colours.FAINT, alpha=0.5, linewidth=0.75)
        return
    own = colours.colour(mark.series)
    if mark.band and not math.isnan(mark.low):
        axes.axhspan(mark.low, mark.high, color=own, alpha=0.15, linewidth=0)
    line = axes.axhline(mark.y, color=own, linewidth=1.5, label=mark.name)
    if dashes := _dashes(mark.series):
        line.set_dashes(dashes)


def _steps(mark: Steps, axes: Axes, at: Layout) -> None:
    x, y = [list(of) for of in zip(*mark.corners, strict=True)]
    x, y = [*x, at.figure.x.high], [*y, y[-1]]
    own = colours.colour(mark.series)
    axes.step(x, y, where="post", color=own, linewidth=1.1, dashes=(4 / 1.5, 2))


def _dots(mark: Dots, axes: Axes, _at: Layout) -> None:
    own = colours.FAINT if mark.look == "faint" else colours.colour(mark.series)
    for point in mark.points:
        if not math.isnan(point.low):
            axes.vlines(point.x, point.low, point.high, color=own, alpha=0.6, linewidth=1.1)
    axes.plot(
        [p.x for p in mark.points],
        [p.y for p in mark.points],
        linestyle="none",
        **_look(mark.series, mark.look),
    )


def _look(series: int | None, look: str) -> dict[str, Any]:
    """Return the arguments of matplotlib for a dot."""
    own = colours.INK if series is None else colours.colour(series)
    own = colours.FAINT if look == "faint" else own
    return {
        "marker": "o" if series is None else MARKERS[colours.marker(series)],
        "markersize": 4.5 if look == "faint" else 6.0,
        "markeredgewidth": 1.1,
        "markeredgecolor": own,
        "markerfacecolor": colours.GROUND if look == "hollow" else own,
    }


def _bar(mark: Bar, axes: Axes, _at: Layout) -> None:
    own = colours.colour(0) if mark.strong else colours.FAINT
    axes.plot(
        [mark.low, mark.high],
        [mark.y, mark.y],
        color=own,
        alpha=0.35,
        linewidth=3.75,
        solid_capstyle="round",
    )
    axes.plot(mark.at, mark.y, marker="o", markersize=6.75, color=own, markeredgewidth=0)


def _heading(mark: Heading, axes: Axes, at: Layout) -> None:
    axes.figure.text(
        EDGE / at.width,
        1 - at.y(mark.y) / at.height,
        cut(mark.text, math.inf),
        va="center",
        style="italic",
        color=colours.INK,
    )


def _square(mark: Square, axes: Axes, _at: Layout) -> None:
    from matplotlib.patches import Rectangle

    corner = (mark.x - 0.5, mark.y - 0.5)
    known = not math.isnan(mark.value)
    shade = colours.heat(mark.value) if known else None
    fill = colours.RULE if shade is None else colours.HEAT[shade]
    ink = "white" if shade in colours.WHITE_TEXT else "black"
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=fill, edgecolor="white", linewidth=0.75))
    if mark.few:
        axes.add_patch(
            Rectangle(
                corner, 1, 1, fill=False, hatch="////", edgecolor=ink, alpha=0.25, linewidth=0
            )
        )
    centred: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
    if known:
        weight = "bold" if mark.aligned else "normal"
        value = f"{100 * mark.value:.1f}"
        axes.text(mark.x, mark.y + 0.19, value, fontsize=9.5, fontweight=weight, **centred)
    axes.text(mark.x, mark.y - 0.25, mark.counted, fontsize=7.5, **centred)


DRAWERS: dict[type, Callable[[Any, Axes, Layout], None]] = {
    Level: _level,
    Line: _line,
    Steps: _steps,
    Bar: _bar,
    Heading: _heading,
    Square: _square,
    Dots: _dots,
}
"""Kind of mark -> what draws it, from the background to the foreground."""


def _labels(drawing: Drawing, at: Layout) -> None:
    from matplotlib.lines import Line2D

    for label in at.labels:
        drawing.text(
            label.x / at.width,
            1 - label.y / at.height,
            label.text,
            ha={"start": "left", "middle": "center", "end": "right"}[label.anchor],
            va="center",
            color=colours.FAINT if label.faint else colours.INK,
        )
        if (ends := leader(label)) is not None and label.series is not None:
            x, y, u, v = ends
            drawing.add_artist(
                Line2D(
                    [x / at.width, u / at.width],
                    [1 - y / at.height, 1 - v / at.height],
                    color=colours.colour(label.series),
                    linewidth=0.75,
                    alpha=0.5,
                )
            )


def _keys(drawing: Drawing, at: Layout) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    for key, (x, y) in zip(at.figure.keys, at.keys, strict=True):
        if key.look == "hatch":
            drawing.add_artist(
                Rectangle(
                    (x / at.width, 1 - (y + 5) / at.height),
                    12 / at.width,
                    10 / at.height,
                    fill=False,
                    hatch="////",
                    edgecolor=colours.FAINT,
                    linewidth=0.75,
                )
            )
        else:
            place = [(x + 6) / at.width], [1 - y / at.height]
            drawing.add_artist(Line2D(*place, linestyle="none", **_look(key.series, key.look)))
        drawing.text(
            (x + 16) / at.width, 1 - y / at.height, key.text, va="center", color=colours.FAINT
        )


def _dashes(series: int) -> tuple[float, ...]:
    """Return the dashes of a series in widths of a line, as matplotlib counts them."""
    return tuple(part / 2 for part in colours.dash(series))

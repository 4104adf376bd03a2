"""The colours of figures, for light and for dark ground.

The series differ for readers who do not see all colours, and have at least 3:1 of contrast with
the ground (WCAG 1.4.11); in grey, their dashes and markers differ. The first three are those of
Okabe and Ito (2008).
"""

SERIES = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#8c6d00", "#332288", "#882255", "#555555")
DARK = ("#56b4e9", "#ff8c42", "#2fd3a0", "#e58bd1", "#d9b92f", "#a79cf0", "#e08aa0", "#b8b8b8")
DASHES: tuple[tuple[float, ...], ...] = ((), (7, 3), (2, 3), (9, 3, 2, 3))
MARKERS = ("circle", "square", "triangle", "diamond")

# of the heat map, from 0 to 100 % in steps of 10 (ColorBrewer RdBu, 11 classes)
HEAT = (
    "#67001f",
    "#b2182b",
    "#d6604d",
    "#f4a582",
    "#fddbc7",
    "#f7f7f7",
    "#d1e5f0",
    "#92c5de",
    "#4393c3",
    "#2166ac",
    "#053061",
)
WHITE_TEXT = (0, 1, 9, 10)  # classes on which white letters have the larger contrast

INK, GROUND = "#1b1b1b", "#ffffff"
DARK_INK, DARK_GROUND = "#ececec", "#15171a"
FAINT, DARK_FAINT = "#6b6b6b", "#a0a0a0"  # text, at least 4.5:1
RULE, DARK_RULE = "#e2e2e2", "#33373c"  # lines behind the marks


def colour(series: int) -> str:
    """Return the colour of a series on light ground."""
    return SERIES[series % len(SERIES)]


def dash(series: int) -> tuple[float, ...]:
    """Return the lengths of dashes and gaps of a series; none for a solid line."""
    return DASHES[series % len(DASHES)]


def marker(series: int) -> str:
    """Return the marker of a series."""
    return MARKERS[series % len(MARKERS)]


def heat(value: float) -> int:
    """Return the class of an accuracy in [0, 1]."""
    return round(10 * value)

"""Writers of figures: names of strangers, equal bytes, colours, and matplotlib's settings."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from debiasbench.common.errors import OptionError
from debiasbench.leaderboard.board import Board
from debiasbench.leaderboard.figures import (
    STYLE,
    Figure,
    colours,
    density,
    groups,
    pareto,
    ranks,
    svg,
)
from debiasbench.leaderboard.figures.figure import Line
from tests.leaderboard.test_figures import CURVE, SVG, board_of, drawn, of_kind, texts
from tests.leaderboard.test_leaderboard import NASTY


def all_figures(board: Board) -> list[Figure]:
    records = [record for record in CURVE if record.id in board.rows[0].records]
    made = [density(board), pareto(board, "seconds"), ranks(board), groups("x", records, "last")]
    return [drawn(figure) for figure in made]


def test_svg_has_no_style_no_script_and_no_id_and_says_all_numbers() -> None:
    for figure in all_figures(board_of(CURVE)):
        picture = svg(figure)
        root = ET.fromstring(picture)
        assert root.get("role") == "img"
        assert root.get("aria-label") == figure.description
        for node in root.iter():
            assert not {"style", "id", "href", "fill", "stroke"} & node.attrib.keys()
            assert node.tag.removeprefix(SVG) in {
                *("svg", "g", "path", "line", "rect", "circle", "text", "title")
            }
    label = drawn(density(board_of(CURVE))).description
    row = next(r for r in board_of(CURVE).rows if r.options.get("density") == 0.04)
    assert f"thin at density 0.04: {100 * row.mean:.1f} % (" in label


def test_every_class_of_a_picture_has_a_rule_in_the_style_sheet() -> None:
    plain = {"chart", "name", "axis", "square", "full"}
    for figure in all_figures(board_of(CURVE)):
        for names in re.findall(r'class="([^"]*)"', svg(figure)):
            for name in set(names.split()) - plain:
                assert f".{name}" in STYLE, name


def nasty() -> Board:
    board = board_of(CURVE)
    rows = [replace(row, method=NASTY + "$\\frac{", setting="") for row in board.rows]
    return replace(board, rows=rows, dataset=NASTY)


def test_names_of_strangers_are_text_in_svg_and_not_formulas_in_matplotlib() -> None:
    pytest.importorskip("matplotlib")
    from debiasbench.leaderboard.figures.plot import plot

    for figure in all_figures(nasty()):
        root = ET.fromstring(svg(figure))
        assert {node.tag for node in root.iter()}.isdisjoint({"i", f"{SVG}i", f"{SVG}script"})
        plot(figure, "svg")
    assert any("<i>%$&{}" in text for text in texts(svg(drawn(ranks(nasty())))))


@pytest.mark.parametrize(
    ("form", "begins"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")]
)
def test_files_of_matplotlib_are_equal_for_equal_figures(form: str, begins: bytes) -> None:
    pytest.importorskip("matplotlib")
    from debiasbench.leaderboard.figures.plot import plot

    figure = drawn(pareto(board_of(CURVE), "seconds"))
    first = plot(figure, form)
    assert first.startswith(begins)
    assert first == plot(figure, form)
    assert not re.search(rb"Date|date>|20\d\d-\d\d", first)
    if form == "pdf":
        assert b"/CIDFontType2" in first  # TrueType, which is type 42 in PostScript
        assert b"/Type3" not in first
    if form == "svg":
        ET.fromstring(first)


def test_the_settings_of_the_user_change_nothing_and_are_not_changed() -> None:
    mpl = pytest.importorskip("matplotlib")
    from debiasbench.leaderboard.figures.plot import plot

    figure = drawn(density(board_of(CURVE)))
    usual = plot(figure, "svg")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "none"}):
        assert plot(figure, "svg") == usual
        assert mpl.rcParams["font.size"] == 30


def test_the_axes_of_matplotlib_have_the_numbers_of_the_data() -> None:
    pytest.importorskip("matplotlib")
    from debiasbench.leaderboard.figures.plot import drawn as of_matplotlib

    figure = drawn(density(board_of(CURVE)))
    (axes,) = of_matplotlib(figure).axes
    assert axes.get_xscale() == "log"
    lines = {line.get_label(): line for line in axes.get_lines()}
    (line,) = of_kind(figure, Line)
    assert list(lines["thin"].get_xdata()) == [point.x for point in line.points]
    assert list(lines["thin"].get_ydata()) == [point.y for point in line.points]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_have_the_contrast_of_wcag_on_light_and_dark_ground() -> None:
    assert all(contrast(c, colours.GROUND) >= 3 for c in colours.SERIES)
    assert all(contrast(c, colours.DARK_GROUND) >= 3 for c in colours.DARK)
    for text, ground in (
        (colours.INK, colours.GROUND),
        (colours.FAINT, colours.GROUND),
        (colours.DARK_INK, colours.DARK_GROUND),
        (colours.DARK_FAINT, colours.DARK_GROUND),
    ):
        assert contrast(text, ground) >= 4.5
    for i, shade in enumerate(colours.HEAT):
        assert contrast(shade, "#ffffff" if i in colours.WHITE_TEXT else "#000000") >= 4.5


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from debiasbench.leaderboard.figures.plot import plot

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(OptionError, match=r'pip install "debiasbench\[plot\]"'):
        plot(drawn(density(board_of(CURVE))), "pdf")

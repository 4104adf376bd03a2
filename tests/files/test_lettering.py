"""Text on pictures: the font has the characters, or the message says which it lacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from debiasbench.files import lettering
from debiasbench.files.lettering import NO_CHARACTER, Letters
from debiasbench.files.sheet import contact_sheet
from debiasbench.testing import toy_task


def written(text: str, width: float | None = None) -> tuple[bytes, str | None]:
    """Return the pixels of a line, and what could not be drawn."""
    canvas = Image.new("RGB", (200, 20))
    letters = Letters(ImageDraw.Draw(canvas), 13)
    letters.write((0, 0), text, (255, 255, 255), width)
    return np.asarray(canvas).tobytes(), letters.problem()


@pytest.fixture
def no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let only Pillow's own font exist."""
    monkeypatch.setattr(lettering, "_found", lambda size: iter(()))
    caches = (lettering._fonts, lettering._has)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_accents_are_drawn_if_a_font_has_them() -> None:
    if len(lettering._fonts(13)) == 1:
        pytest.skip("this machine has no font besides Pillow's")
    accented, problem = written("café")
    assert problem is None
    assert accented not in {written("cafe")[0], written(f"caf{NO_CHARACTER}")[0]}
    assert written("cafe\u0301")[0] == accented


def test_without_a_font_letters_lose_their_accents_and_the_message_names_them(
    no_system_fonts: None,
) -> None:
    pixels, problem = written("café 水")
    assert pixels == written("cafe ?")[0]
    assert problem is not None
    assert "as '?': é 水. Install a font" in problem
    assert written("plain text, 100 %…")[1] is None


def test_a_line_is_one_line_and_not_wider_than_requested() -> None:
    assert written("two\nlines\u202e")[0] == written("two lines ")[0]
    columns = np.frombuffer(written("a long name of a class", 60)[0], np.uint8)
    assert columns.reshape(20, 200, 3)[:, 61:].max() == 0


def test_the_sheet_warns_of_names_that_it_cannot_draw(no_system_fonts: None) -> None:
    task = replace(toy_task(), classes=("école", "水"))
    with pytest.warns(UserWarning, match="é 水"):
        contact_sheet(task, task.train, "accents")

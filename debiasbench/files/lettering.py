"""Write text on pictures in a font that has its characters, and say which cannot be drawn."""

from __future__ import annotations

import importlib.util
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import ImageFont

from debiasbench.files.importing.wording import few

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.ImageDraw import ImageDraw

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "arial.ttf",  # Windows
    "Arial Unicode.ttf",  # macOS
    "NotoSansCJK-Regular.ttc",
    "wqy-zenhei.ttc",
    "msyh.ttc",  # Windows, Chinese
    "msgothic.ttc",  # Windows, Japanese
    "malgun.ttf",  # Windows, Korean
    "PingFang.ttc",  # macOS
)
"""Fonts that are tried in this order after Pillow's own, which has the characters of ASCII only."""

NO_CHARACTER = "\uffff"  # never assigned, so a font draws its sign for missing characters


class Letters:
    """Writes lines of text on a picture.

    A line is written in the first font that has all its characters, or else in the one that has
    most of them. A letter that it lacks loses its accents, or becomes "?".
    """

    def __init__(self, draw: ImageDraw, size: int) -> None:
        self._draw, self._size = draw, size
        self._lacking: dict[str, None] = {}

    def write(
        self,
        at: tuple[int, int],
        text: str,
        colour: tuple[int, int, int],
        width: float | None = None,
    ) -> None:
        """Write one line with its upper left corner at `at`, shortened to `width` pixels."""
        font, text = self._set(text)
        if width is not None:
            text = _fitting(text, width, font)
        self._draw.text(at, text, colour, font)

    def width(self, text: str) -> int:
        """Return the width of a line in pixels."""
        font, text = self._set(text)
        return round(font.getlength(text))

    def problem(self) -> str | None:
        """Return a sentence about the characters that were replaced, or None if there are none."""
        if not self._lacking:
            return None
        return (
            "No font on this machine has some characters of the names, so the sheet shows them "
            f"without accents or as '?': {few(list(self._lacking), 10, ' ')}. Install a font that "
            "has them, such as DejaVu Sans, or Noto Sans CJK for Chinese, Japanese and Korean"
        )

    def _set(self, text: str) -> tuple[Font, str]:
        """Return the font of a line, and the line with the characters that the font has."""
        # names may contain line breaks and characters that change the direction of writing
        text = "".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFC", text))
        best, lacking = 0, text
        for number, _ in enumerate(_fonts(self._size)):
            missing = "".join(c for c in text if not _has(self._size, number, c))
            if len(missing) < len(lacking) or number == 0:
                best, lacking = number, missing
            if not missing:
                break
        self._lacking.update(dict.fromkeys(lacking))
        set_text = "".join(_replacement(self._size, best, c) if c in lacking else c for c in text)
        return _fonts(self._size)[best], set_text


@lru_cache(maxsize=4)
def _fonts(size: int) -> tuple[Font, ...]:
    return (ImageFont.load_default(size), *_found(size))


def _found(size: int) -> Iterator[Font]:
    names = [*SYSTEM_FONTS]
    if (spec := importlib.util.find_spec("matplotlib")) is not None and spec.origin is not None:
        own = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        names.insert(1, str(own))
    for name in names:
        try:
            yield ImageFont.truetype(name, size)
        except OSError:
            continue  # not on this machine


@lru_cache(maxsize=10_000)
def _has(size: int, number: int, character: str) -> bool:
    """Return whether a font draws a character otherwise than one that it does not have."""
    if character.isspace():
        return True
    font = _fonts(size)[number]
    mask, other = font.getmask(character), font.getmask(NO_CHARACTER)
    return (mask.size, bytes(mask)) != (other.size, bytes(other))


def _replacement(size: int, number: int, character: str) -> str:
    """Return a letter without its accents if the font has that, or else "?"."""
    base = "".join(
        c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)
    )
    return base if base and all(_has(size, number, c) for c in base) else "?"


def _fitting(text: str, width: float, font: Font) -> str:
    """Shorten a text to a width in pixels."""
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2] + "…" if len(text) > 2 else text[:-1]
    return text

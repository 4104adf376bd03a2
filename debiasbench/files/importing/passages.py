"""Pack the texts of rows, as the reader of images decodes their files."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from debiasbench.files.importing.repeats import Repeats

if TYPE_CHECKING:
    from pathlib import Path

    from debiasbench.core.texts import Texts
    from debiasbench.files.importing.source import Problem, Row


class TextReader:
    """Packs rows of texts; those without a text were found before.

    `leaks`: pairs of rows of different splits with the same texts.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self._repeats = Repeats()
        self._kept: list[Row] = []

    @property
    def leaks(self) -> list[tuple[Row, Row]]:
        """Pairs of rows of different splits with the same texts."""
        return self._repeats.found

    @property
    def facts(self) -> dict[str, object]:
        """What is kept beside the data: nothing."""
        return {}

    def write(self, rows: list[Row], file: int, place: Path) -> list[Row]:
        """Remember the rows, and compare those of different splits; return all of them."""
        for row in rows:
            content = "\0".join(row.content).encode("utf-8", "surrogatepass")
            self._repeats.add(row, blake2b(content, digest_size=16).digest())
        self._kept = rows
        return rows

    def check(self, rows: list[Row]) -> list[Row]:
        """Return all rows: texts have no problems of their own."""
        return rows

    def mapped(self, file: int) -> Texts:
        """Return the texts of the rows that were written."""
        from debiasbench.core.texts import Texts

        return Texts.of(row.content for row in self._kept)

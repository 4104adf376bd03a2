"""Samples that are equal to one of another split."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from debiasbench.files.importing.source import Row


class Repeats:
    """Finds rows whose content is that of a row of another split.

    `found`: pairs of such rows, the earlier one first.
    """

    def __init__(self) -> None:
        self.found: list[tuple[Row, Row]] = []
        self._first: dict[bytes, dict[str, Row]] = {}  # digest of the content -> split -> first row

    def add(self, row: Row, digest: bytes) -> None:
        """Compare a row with the earlier ones; `digest`: of its content."""
        same = self._first.setdefault(digest, {})
        if others := [other for split, other in same.items() if split != row.split]:
            self.found.append((others[0], row))
        same.setdefault(row.split, row)

"""Read tables of text, separated by commas or spaces; every error names file and line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from debiasbench.common.errors import DataError
from debiasbench.common.regular import check_regular

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Lines = Iterator[tuple[int, list[str]]]
"""Rows as (line number from 1, cells), read lazily and without empty lines."""

AGAIN = "Download the original file again"


@dataclass(frozen=True)
class Row:
    """Cells by column, with their file and line."""

    path: Path
    line: int
    cells: Mapping[str, str]

    @property
    def where(self) -> str:
        """The file and the line, for error messages."""
        return f"{self.path}, line {self.line}"

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def one_of(self, column: str, allowed: Mapping[str, int]) -> int:
        """Return the number that a cell means; raises `DataError` if it is not allowed."""
        cell = self.cells[column]
        if cell not in allowed:
            raise DataError(
                f"{self.where}: {column} is {cell!r}, must be {' or '.join(allowed)}. {AGAIN}"
            )
        return allowed[cell]


def comma_separated(path: Path) -> Lines:
    """Read CSV in UTF-8, with any line endings, with or without a byte order mark."""
    with _errors(path), _opened(path, newline="") as file:
        reader = csv.reader(file)
        try:
            for cells in reader:
                if cells:
                    yield reader.line_num, [cell.strip() for cell in cells]
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}. {AGAIN}") from error


def space_separated(path: Path) -> Lines:
    """Read words in UTF-8, with any line endings, with or without a byte order mark."""
    with _errors(path), _opened(path) as file:
        for number, line in enumerate(file, 1):
            if words := line.split():
                yield number, words


def has_commas(path: Path) -> bool:
    """Return whether the first line with text contains a comma, as in CSV of any file name."""
    with _errors(path), _opened(path) as file:
        return "," in next((line for line in file if line.strip()), "")


def rows(path: Path, lines: Lines, header: Sequence[str], wanted: Sequence[str]) -> Iterator[Row]:
    """Yield rows with the wanted columns; each row must have as many cells as the header.

    Raises `DataError` if a column is missing or occurs twice.
    """
    for column in wanted:
        if header.count(column) != 1:
            count = "no" if column not in header else "more than one"
            raise DataError(
                f"{path} has {count} column {column!r}; its columns are "
                f"{', '.join(header) or 'none'}. {AGAIN}"
            )
    places = {column: header.index(column) for column in wanted}
    for line, cells in lines:
        if len(cells) != len(header):
            raise DataError(
                f"{path}, line {line}: {len(cells)} cells, but the header has {len(header)}. "
                f"{AGAIN}"
            )
        yield Row(path, line, {column: cells[i] for column, i in places.items()})


def by_id(table: Iterator[Row], column: str) -> dict[str, Row]:
    """Return rows by the value of a column; raises `DataError` if two rows have the same."""
    by_value: dict[str, Row] = {}
    for row in table:
        first = by_value.setdefault(row[column], row)
        if first is not row:
            raise DataError(
                f"{row.where}: {column} {row[column]!r} is already in line {first.line}. {AGAIN}"
            )
    return by_value


def _opened(path: Path, newline: str | None = None) -> TextIO:
    check_regular(path)
    return path.open(encoding="utf-8-sig", newline=newline)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text. {AGAIN}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). {AGAIN}") from error

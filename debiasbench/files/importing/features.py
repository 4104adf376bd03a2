"""Columns of a table as the numbers of a sample: standardised, or one value each (one-hot)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError
from debiasbench.common.wording import counted, shown
from debiasbench.files.importing.labels import CONTROL, is_missing, plain
from debiasbench.files.importing.source import Problem
from debiasbench.files.importing.wording import few

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from debiasbench.files.importing.source import Row

MOST_VALUES = 1000  # of a categorical column; one with more is a name or an id
MOST_FEATURES = 100_000


@dataclass(frozen=True)
class Number:
    """A numeric column: (value - mean) / std, both of the training split; `std` is never 0."""

    column: str
    mean: float
    std: float

    @property
    def width(self) -> int:
        """Numbers of a sample that come from this column."""
        return 1

    def encode(self, values: Sequence[str], out: NDArray[np.float32]) -> None:
        """Write the values of N samples to `out`, (N, 1)."""
        import numpy as np

        out[:, 0] = (np.array([float(value) for value in values]) - self.mean) / self.std


@dataclass(frozen=True)
class Category:
    """A categorical column: one number for each of its values in training, 1 for the own value.

    All of them are 0 for a value that does not occur in training.
    """

    column: str
    values: tuple[str, ...]

    @property
    def width(self) -> int:
        """Numbers of a sample that come from this column."""
        return len(self.values)

    def encode(self, values: Sequence[str], out: NDArray[np.float32]) -> None:
        """Write the values of N samples to `out`, (N, width), which is all 0."""
        place = {value: i for i, value in enumerate(self.values)}
        for i, value in enumerate(values):
            if (at := place.get(plain(value))) is not None:
                out[i, at] = 1


class FeatureReader:
    """Encodes rows of features; the training rows decide what each column is.

    A column is numeric if more than half of its values in training are numbers, and it is not one
    of `categorical`. Then its other values are problems.
    `problems`: cells without a usable value. `facts`: the columns as they are encoded.
    """

    def __init__(
        self, columns: Sequence[str], categorical: Collection[str], rows: Sequence[Row]
    ) -> None:
        self.problems: list[Problem] = []
        self.leaks: list[tuple[Row, Row]] = []  # equal rows of a table are no mistake
        self.warnings: list[str] = []
        self.facts: dict[str, object] = {}
        self._columns = columns
        self._numeric = [
            column not in categorical and _is_numeric([row.content[i] for row in rows])
            for i, column in enumerate(columns)
        ]
        self._x: NDArray[np.float32]

    def write(self, rows: list[Row], file: int, place: Path) -> list[Row]:
        """Encode the rows without problems, and return them; raises `DataError`."""
        import numpy as np

        kept = self.check(rows)
        training = [row for row in kept if row.split == "train"]
        if not training:  # an error of the whole, which names the split
            return kept
        encoders = [
            (_number if numeric else _category)(column, [row.content[i] for row in training])
            for i, (column, numeric) in enumerate(zip(self._columns, self._numeric, strict=True))
        ]
        width = sum(encoder.width for encoder in encoders)
        if width > MOST_FEATURES:
            raise DataError(
                f"The columns make {width:,} features, more than {MOST_FEATURES:,}. Choose columns "
                "with fewer values with --features"
            )
        self._x = np.zeros((len(kept), width), dtype=np.float32)
        at = 0
        for i, encoder in enumerate(encoders):
            values = [row.content[i] for row in kept]
            encoder.encode(values, self._x[:, at : at + encoder.width])
            at += encoder.width
            self._warn(encoder, values)
        self.facts = {"features": [_described(encoder) for encoder in encoders]}
        return kept

    def check(self, rows: list[Row]) -> list[Row]:
        """Find the problems of rows, and return the good ones."""
        good = []
        for row in rows:
            messages = [
                message
                for column, numeric, value in zip(
                    self._columns, self._numeric, row.content, strict=True
                )
                if (message := _problem(column, value, numeric=numeric))
            ]
            self.problems += [Problem(row.line, row.file, message) for message in messages]
            if not messages:
                good.append(row)
        return good

    def mapped(self, file: int) -> Tensor:
        """Return the encoded rows, (N, F) float32."""
        import torch

        return torch.from_numpy(self._x)

    def _warn(self, encoder: Number | Category, values: Sequence[str]) -> None:
        if isinstance(encoder, Number):
            return
        known = set(encoder.values)
        if new := sorted({plain(value) for value in values} - known):
            count = sum(plain(value) not in known for value in values)
            self.warnings.append(
                f"Column {encoder.column!r} has values that do not occur in training, in "
                f"{counted(count, 'row')}: {few(new)}. All of its features are 0 there"
            )


def _is_numeric(values: Sequence[str]) -> bool:
    return 2 * sum(_is_number(value) for value in values) > len(values)


def _is_number(text: str) -> bool:
    try:
        return "_" not in text and math.isfinite(float(text))  # Python reads 2020_01 as 202001
    except ValueError:
        return False


def _problem(column: str, value: str, *, numeric: bool) -> str:
    """Return what is wrong with a cell, or nothing."""
    if is_missing(value):
        return f"has no value (column {column!r})"
    if CONTROL.search(value):
        return f"has control characters in column {column!r}: remove them"
    if numeric and not _is_number(value):
        return (
            f"has {shown(value)} in column {column!r}, where most values are numbers. If they are "
            f"categories, use --categorical {column}"
        )
    return ""


def _number(column: str, values: Sequence[str]) -> Number:
    import numpy as np

    numbers = np.array([float(value) for value in values])
    scale = float(np.abs(numbers).max(initial=0.0)) or 1.0  # keeps squares of large values finite
    mean, std = float((numbers / scale).mean()), float((numbers / scale).std())
    if std < 1e-12:  # all values are equal, up to rounding
        std = 1 / scale
    return Number(column, mean * scale, std * scale)


def _category(column: str, values: Sequence[str]) -> Category:
    known = sorted({plain(value) for value in values})
    if len(known) > MOST_VALUES:
        raise DataError(
            f"Column {column!r} has {len(known):,} different values in training, more than "
            f"{MOST_VALUES:,}. Leave it out: name the columns to use with --features"
        )
    return Category(column, tuple(known))


def _described(encoder: Number | Category) -> dict[str, object]:
    if isinstance(encoder, Number):
        return {"column": encoder.column, "mean": encoder.mean, "std": encoder.std}
    return {"column": encoder.column, "values": list(encoder.values)}

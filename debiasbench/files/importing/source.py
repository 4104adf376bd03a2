"""What to import, its rows, and the problems of single ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError
from debiasbench.common.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


EVERY = ("*",)  # as features: every other column


@dataclass(frozen=True)
class Source:
    """What to import, and how to read it.

    Of `images`, `text` and `features`, one is given: the kind of samples.
    `images`: a folder. With `table`, a CSV (or .tsv) file with one row per image in that folder;
    `label`, `bias`, `file` and `split` are its columns. If `file` is None, the column is detected;
    if `split` is None, the rows are split at random with `seed`. Without `table` the folder is a
    tree, CLASS/BIAS/FILE or SPLIT/CLASS/BIAS/FILE.
    `text`: one or two columns of `table`: a sample is a text, or a pair of texts.
    `features`: columns of `table` whose values are the numbers of a sample; `EVERY` stands for all
    that are not label, bias or split. `categorical`: those of them that are one-hot encoded even
    if their values are numbers.
    `size`: (height, width) in pixels to scale to; the size of the images if None.
    `aligned`: "class:bias,class:bias"; determined from the training split if None.
    `balance_test`: leave out test images until each group has the same number, drawn with `seed`.
    `convert`: also accept palette, CMYK, 16-bit and transparent images, as 8-bit RGB.
    """

    images: Path = Path()
    table: Path | None = None
    label: str = ""
    bias: tuple[str, ...] = ()
    file: str | None = None
    split: str | None = None
    size: tuple[int, int] | None = None
    aligned: str | None = None
    seed: int = 0
    convert: bool = False
    balance_test: bool = False
    text: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()

    @property
    def noun(self) -> str:
        """What a sample is called in messages; its plural ends in "s"."""
        return "text" if self.text else "row" if self.features else "image"


@dataclass(frozen=True)
class Row:
    """One sample, as written in the table or the tree, with its location.

    `line` counts from 1 and is None in a tree of folders. `bias` has one value per bias column.
    `split` is the written text until the row is checked, then train, val, test or empty. `content`:
    the texts or features of a sample that is no image; then `file` is empty, and `path` stands for
    the line.
    """

    line: int | None
    file: str
    label: str
    bias: tuple[str, ...]
    split: str = ""
    path: Path = field(default_factory=Path)
    content: tuple[str, ...] = ()

    def __str__(self) -> str:
        return _place(self.line, self.file)


@dataclass(frozen=True)
class Problem:
    """A problem of one row; `line` counts from 1 and is None in a tree of folders."""

    line: int | None
    file: str
    message: str

    def __str__(self) -> str:
        return f"{_place(self.line, self.file)}: {self.message}"


@dataclass(frozen=True)
class Rows:
    """Rows as written, problems of lines that are not rows, and notes for the user.

    `splits`: whether the rows have splits. `classes`: classes that must have an image, in addition
    to those of the rows. `columns`: the names of what `Row.content` has.
    """

    rows: list[Row]
    problems: list[Problem]
    notes: list[str]
    splits: bool
    classes: frozenset[str] = frozenset()
    columns: tuple[str, ...] = ()


class BadRows(DataError):  # noqa: N818 - the name is the problem
    """Some rows cannot be imported; `problems` has all of them, sorted by line."""

    def __init__(self, problems: Sequence[Problem], total: int, noun: str = "image") -> None:
        self.problems = tuple(problems)
        super().__init__(
            f"{bad_rows(problems):,} of {total:,} {noun}s cannot be imported. The first one: "
            f"{problems[0]}. Nothing was imported. Fix these {noun}s, or skip them with --skip-bad"
        )


def bad_rows(problems: Iterable[Problem]) -> int:
    """Count the rows with problems; one row may have several."""
    return len({(problem.line, problem.file) for problem in problems})


def _place(line: int | None, file: str) -> str:
    file = printable(file)
    if line is None:
        return file
    return f"line {line}, {file}" if file else f"line {line}"

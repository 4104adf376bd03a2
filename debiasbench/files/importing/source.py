"""What is imported: the request, its rows, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Source:
    """What to import, and how to read it.

    `images`: a folder. With `table`, a CSV (or .tsv) file whose rows name files in it: `label`,
    `bias`, `file` and `split` are columns; `file` is found if it is None, and without `split` the
    rows are split by `seed`. Without `table` the folder is a tree, CLASS/BIAS/FILE or
    SPLIT/CLASS/BIAS/FILE.
    `size`: (height, width) to scale to; the images' own if None.
    `aligned`: "class:bias,class:bias"; taken from the training split if None.
    `convert`: take palette, CMYK, 16-bit and transparent images too, as 8-bit RGB.
    """

    images: Path
    table: Path | None = None
    label: str = ""
    bias: tuple[str, ...] = ()
    file: str | None = None
    split: str | None = None
    size: tuple[int, int] | None = None
    aligned: str | None = None
    seed: int = 0
    convert: bool = False


@dataclass(frozen=True)
class Row:
    """One image: as it is written, and where it was found.

    `line` counts from 1 and is None in a tree of folders; a value of `bias` per bias column;
    `split` is as written until the row is vetted, then train, val, test or empty.
    """

    line: int | None
    file: str
    label: str
    bias: tuple[str, ...]
    split: str = ""
    path: Path = field(default_factory=Path)

    def __str__(self) -> str:
        return _place(self.line, self.file)


@dataclass(frozen=True)
class Problem:
    """What is wrong with one image; `line` counts from 1 and is None in a tree of folders."""

    line: int | None
    file: str
    what: str

    def __str__(self) -> str:
        return f"{_place(self.line, self.file)}: {self.what}"


class BadRows(DataError):  # noqa: N818 - it says what there is
    """Images that cannot be imported, all of them in `problems`, by line."""

    def __init__(self, problems: Sequence[Problem], of: int) -> None:
        self.problems = tuple(problems)
        super().__init__(
            f"{bad_rows(problems):,} of {of:,} images cannot be imported, the first: "
            f"{problems[0]}. Nothing was imported: mend them, or leave them out with --skip-bad"
        )


def bad_rows(problems: Iterable[Problem]) -> int:
    """Count images; one may have several problems."""
    return len({(problem.line, problem.file) for problem in problems})


def _place(line: int | None, file: str) -> str:
    if line is None:
        return file
    return f"line {line}, {file}" if file else f"line {line}"

"""Check rows without opening images, and split them at random where no split is given."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import suggestion
from debiasbench.files.importing.labels import CONTROL, is_missing, plain
from debiasbench.files.importing.source import Problem

if TYPE_CHECKING:
    from debiasbench.files.importing.source import Row, Source

SPLITS = {
    **dict.fromkeys(("train", "training", "0"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "1"), "val"),
    **dict.fromkeys(("test", "testing", "2"), "test"),
}
"""Accepted names of a split, in any case; the numbers are those of the table of Waterbirds."""

PERCENT = {"train": 70, "val": 10, "test": 20}  # of each group, where rows have no split


@dataclass(frozen=True)
class Vetted:
    """`good` rows, with path and split; `doubtful`: bad rows whose images can still be opened."""

    good: list[Row]
    doubtful: list[Row]
    problems: list[Problem]


def vet(rows: list[Row], source: Source, *, splits: bool) -> Vetted:
    """Find the file and the split of each row, and all problems of content, split and labels.

    `splits`: whether each row must have a split.
    """
    base = Path(os.path.realpath(source.images))
    vetted = Vetted([], [], [])
    first: dict[Path, Row] = {}
    for row in rows:
        path = Path(str(row.line)) if row.content else locate(base, row.file)
        earlier = first.setdefault(path, row) if isinstance(path, Path) else row
        split = SPLITS.get(plain(row.split).lower(), "")
        messages = [path] if isinstance(path, str) else _empty(row, source)
        if earlier is not row:
            messages.append(f"is the same file as {earlier}")
        messages += _labels(row, source)
        if splits and not split:
            messages.append(_no_split(row.split))
        vetted.problems.extend(Problem(row.line, row.file, message) for message in messages)
        if isinstance(path, Path) and earlier is row:
            rest = vetted.doubtful if messages else vetted.good
            rest.append(replace(row, path=path, split=split))
    return vetted


def _empty(row: Row, source: Source) -> list[str]:
    return [
        f"has no text (column {column!r})"
        for column, text in zip(source.text, row.content, strict=False)
        # almost every text has a letter soon, and `plain` looks at all characters
        if not any(map(str.isalnum, text)) and not plain(text)
    ]


def _labels(row: Row, source: Source) -> list[str]:
    cells = [("label", source.label, row.label)]
    cells += [
        ("bias", column, value)
        for column, value in zip(source.bias or ("bias",), row.bias, strict=True)
    ]
    messages = []
    for kind, column, value in cells:
        if CONTROL.search(value):
            messages.append(f"has control characters in its {kind}, {value!r}: remove them")
        if not plain(value):
            messages.append(f"has no {kind} (column {column!r})")
        elif is_missing(value):
            messages.append(
                f"has no {kind} (column {column!r}): {value!r} stands for a missing value. "
                "If it is a name, rename it"
            )
    return messages


def _no_split(value: str) -> str:
    if not value:
        return "has no split: use train, val or test"
    guess = suggestion(value.lower(), SPLITS)
    return f"has the unknown split {value!r}.{guess} Use train, val or test"


def locate(base: Path, file: str) -> Path | str:
    """Return the file of a row with links resolved, or a message about its problem.

    `base`: the folder of images, with links resolved.
    """
    if not file or "\0" in file:
        return "has no file name"
    if Path(file).is_absolute():
        return f"is an absolute path: write it relative to {base}"
    if Path(os.path.normpath(file)).parts[:1] == (os.pardir,):
        return f"is outside {base}"
    try:
        real = _real(base, file)
        regular = stat.S_ISREG(real.stat().st_mode)
    except OSError as error:
        return _not_found(file, error)
    if not real.is_relative_to(base):
        return f"is a symbolic link to a place outside {base}"
    return real if regular else "is not a file"


def _real(base: Path, file: str) -> Path:
    """Return the file with links resolved; names in NFC and NFD are the same, as on macOS."""
    try:
        return Path(os.path.realpath(base / file, strict=True))
    except FileNotFoundError:
        for form in ("NFC", "NFD"):
            name = unicodedata.normalize(form, file)
            if name != file and (base / name).exists():
                return Path(os.path.realpath(base / name, strict=True))
        raise


def _not_found(file: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "is missing" + (": use / between folders" if "\\" in file else "")
    if error.errno == errno.ELOOP:
        return "is a symbolic link that points back to itself"
    return f"cannot be read ({error.strerror or error})"


def lot(row: Row, seed: int) -> bytes:
    """Return what rows are sorted by to draw some at random: it depends on the row and the seed.

    Of an image it is its file name, otherwise its content: equal texts often share a split.
    """
    if row.content:
        return blake2b(f"{seed}/{row.content!r}".encode()).digest()
    return blake2b(f"{seed}/".encode() + os.fsencode(row.file)).digest()


def split(rows: list[Row], seed: int) -> list[Row]:
    """Assign each row to a split, in each group by `PERCENT`.

    The result depends on the file names or the content, and on the seed, not on the order of rows.
    A group of three or more has a sample in every split, a group of two in training and test.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.label, row.bias), []).append(row)
    splits: dict[Path, str] = {}
    for members in groups.values():
        members.sort(key=lambda row: lot(row, seed))
        n = len(members)
        test = max(round(n * PERCENT["test"] / 100), int(n > 1))
        val = max(round(n * PERCENT["val"] / 100), int(n > 2))
        for i, row in enumerate(members):
            splits[row.path] = "test" if i < test else "val" if i < test + val else "train"
    return [replace(row, split=splits[row.path]) for row in rows]

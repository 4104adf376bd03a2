"""What is wrong with rows, as far as it shows without opening the images; and splits by chance."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import suggestion
from debiasbench.files.importing.source import Problem

if TYPE_CHECKING:
    from debiasbench.files.importing.source import Row, Source

SPLITS = {
    "train": "train", "training": "train", "0": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "1": "val",
    "test": "test", "testing": "test", "2": "test",
}  # fmt: skip
"""What a split may be called, in any case; the numbers are those of Waterbirds' table."""

PERCENT = {"train": 70, "val": 10, "test": 20}  # of each group, where rows do not say their splits


@dataclass(frozen=True)
class Vetted:
    """`good` rows, with path and split; `doubtful`: bad ones whose images can be looked at."""

    good: list[Row]
    doubtful: list[Row]
    problems: list[Problem]


def vet(rows: list[Row], source: Source, *, splits: bool) -> Vetted:
    """Find each row's file and split, and everything that is wrong with either or its labels.

    `splits`: whether rows must say their splits.
    """
    base = Path(os.path.realpath(source.images))
    found = Vetted([], [], [])
    first: dict[Path, Row] = {}
    for row in rows:
        path = locate(base, row.file)
        again = first.setdefault(path, row) if isinstance(path, Path) else row
        split = SPLITS.get(row.split.lower(), "")
        wrong = [path] if isinstance(path, str) else []
        if again is not row:
            wrong.append(f"is the same file as {again}")
        wrong += _labels(row, source)
        if splits and not split:
            wrong.append(_no_split(row.split))
        found.problems.extend(Problem(row.line, row.file, what) for what in wrong)
        if isinstance(path, Path) and again is row:
            (found.doubtful if wrong else found.good).append(replace(row, path=path, split=split))
    return found


def _labels(row: Row, source: Source) -> list[str]:
    wrong = [] if row.label else [f"has no label (column {source.label!r})"]
    columns = source.bias or ("bias",)
    return wrong + [
        f"has no bias (column {column!r})"
        for column, value in zip(columns, row.bias, strict=True)
        if not value
    ]


def _no_split(value: str) -> str:
    if not value:
        return "has no split: write train, val or test"
    guess = suggestion(value.lower(), SPLITS)
    return f"has the unknown split {value!r}.{guess} Write train, val or test"


def locate(base: Path, file: str) -> Path | str:
    """Return the file that a row names, links resolved, or what is wrong with it.

    `base` is the folder of images, links resolved.
    """
    if not file or "\0" in file:
        return "names no file"
    if Path(file).is_absolute():
        return f"is an absolute path: write it from {base} on"
    if Path(os.path.normpath(file)).parts[:1] == (os.pardir,):
        return f"leads out of {base}"
    try:
        real = Path(os.path.realpath(base / file, strict=True))
        regular = stat.S_ISREG(real.stat().st_mode)
    except OSError as error:
        return _not_there(file, error)
    if not real.is_relative_to(base):
        return f"is a symbolic link out of {base}"
    return real if regular else "is no file"


def _not_there(file: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "is missing" + (": write / between folders" if "\\" in file else "")
    if error.errno == errno.ELOOP:
        return "is a symbolic link that leads back to itself"
    return f"cannot be read ({error.strerror or error})"


def split(rows: list[Row], seed: int) -> list[Row]:
    """Give each row a split, in each group by `PERCENT`.

    Which row goes where is decided by the names of files, not by the order of rows. A group of
    three and more has a sample in every split, one of two in training and test.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.label, row.bias), []).append(row)
    splits: dict[Path, str] = {}
    for members in groups.values():
        members.sort(key=lambda row: blake2b(f"{seed}/".encode() + os.fsencode(row.file)).digest())
        n = len(members)
        test = max(round(n * PERCENT["test"] / 100), int(n > 1))
        val = max(round(n * PERCENT["val"] / 100), int(n > 2))
        for i, row in enumerate(members):
            splits[row.path] = "test" if i < test else "val" if i < test + val else "train"
    return [replace(row, split=splits[row.path]) for row in rows]

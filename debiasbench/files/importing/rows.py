"""Rows out of a table or a tree of folders, as they are written there."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError, OptionError, suggestion
from debiasbench.files.importing.source import Problem, Row
from debiasbench.files.importing.vetting import SPLITS, locate

if TYPE_CHECKING:
    from debiasbench.files.importing.source import Source

FILE_COLUMNS = (
    "file", "filename", "file_name", "filepath", "file_path", "image", "image_file", "image_id",
    "image_path", "img", "img_file", "img_filename", "img_path", "path",
)  # fmt: skip
LOOKED_AT = 1000  # rows that tell which column names files
SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp",
}  # fmt: skip
LITTER = {"thumbs.db", "desktop.ini"}  # what systems leave in folders of images


@dataclass(frozen=True)
class Rows:
    """`rows` as written, `problems` with what is no row, `notes` on what was decided.

    `splits`: whether the rows say their splits.
    """

    rows: list[Row]
    problems: list[Problem]
    notes: list[str]
    splits: bool


def read(source: Source) -> Rows:
    """Read a source's rows; raises `DataError` where there are none to be had."""
    if not source.images.is_dir():
        raise DataError(f"{source.images} is no folder: give the one that holds the images")
    if source.table is None:
        return _tree(source.images)
    return _table(source, source.table)


def _table(source: Source, table: Path) -> Rows:
    if not (source.label and source.bias):
        raise OptionError(f"Say which columns of {table} are label and bias: --label, --bias")
    records = _records(table)
    if len(records) < 2:
        raise DataError(f"{table} has no rows: give a table with a header and a row per image")
    header = [name.strip() for name in records[0][1]]
    _check_columns(source, table, header)
    cells, problems = [], []
    for line, fields in records[1:]:
        if len(fields) == len(header):
            values = (value.strip() for value in fields)
            cells.append((line, dict(zip(header, values, strict=True))))
        else:
            what = f"has {len(fields)} fields, the header has {len(header)}"
            problems.append(Problem(line, "", what))
    file = source.file or _file_column(source, table, header, [cell for _, cell in cells])
    rows = [
        Row(
            line,
            cell[file],
            cell[source.label],
            tuple(cell[column] for column in source.bias),
            cell[source.split] if source.split is not None else "",
        )
        for line, cell in cells
    ]
    return Rows(rows, problems, _notes(source, header, file), splits=source.split is not None)


def _notes(source: Source, header: list[str], file: str) -> list[str]:
    notes = [] if source.file else [f"Files are named by the column {file!r}."]
    unused = [c for c in header if c.lower() == "split"]
    if source.split is None and unused:
        notes.append(f"The column {unused[0]!r} is not used: --split {unused[0]} would use it.")
    return notes


def _records(table: Path) -> list[tuple[int, list[str]]]:
    """Read what is not blank, each record with the number of the line on which it begins."""
    try:
        raw = table.read_bytes()
    except OSError as error:
        raise DataError(f"{table} cannot be read: {error.strerror or error}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{table}, line {line}, is not UTF-8: save the table as UTF-8") from error
    delimiter = "\t" if table.suffix.lower() in {".tsv", ".tab"} else ","
    # strict: a quote that is never closed would swallow all rows after it
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    records, line = [], 1
    try:
        for fields in reader:
            if any(value.strip() for value in fields):
                records.append((line, fields))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{table} cannot be read from line {line} on ({error}): close every quote, and double "
            "those within a field"
        ) from error
    return records


def _check_columns(source: Source, table: Path, header: list[str]) -> None:
    used = [c for c in (source.label, *source.bias, source.file, source.split) if c is not None]
    counts = Counter(header)
    if missing := [column for column in dict.fromkeys(used) if column not in counts]:
        said = ", ".join(map(repr, missing)) + "." + "".join(suggestion(c, header) for c in missing)
        parted = len(header) == 1 and any(mark in header[0] for mark in ";\t|")
        hint = ". Commas part the fields of .csv files, tabs those of .tsv files" if parted else ""
        raise DataError(f"{table} has no column {said} Columns: {', '.join(header)}{hint}")
    if twice := [column for column in used if counts[column] > 1]:
        raise DataError(f"{table} has two columns {twice[0]!r}: rename one of them")
    if again := [column for column, n in Counter(used).items() if n > 1]:
        raise OptionError(
            f"The column {again[0]!r} is given twice: label, bias, file and split are different "
            "columns"
        )


def _file_column(
    source: Source, table: Path, header: list[str], cells: list[dict[str, str]]
) -> str:
    """Find the column of files: by its name, else as the only one whose values are files."""
    used = {source.label, *source.bias, source.split}
    free = [column for column in header if column and column not in used]
    named = [column for column in free if column.lower() in FILE_COLUMNS]
    if len(named) == 1:
        return named[0]
    base = Path(os.path.realpath(source.images))
    there = [
        column
        for column in named or free
        if any(isinstance(locate(base, cell[column]), Path) for cell in cells[:LOOKED_AT])
    ]
    if len(there) == 1:
        return there[0]
    could = ", ".join(there or named or free) or "there is none beside label, bias and split"
    raise DataError(f"Which column of {table} names the files? Say --file COLUMN: {could}")


def _tree(folder: Path) -> Rows:
    files, problems = _walk(folder)
    tops = {parts[0].lower() for parts in files if len(parts) > 1}
    words = {word for word in SPLITS if not word.isdigit()}
    splits = bool(tops) and tops <= words and any(len(parts) == 4 for parts in files)
    rows = []
    for parts in files:
        file = "/".join(parts)
        readable = file.encode("utf-8", "backslashreplace").decode()
        if readable != file:
            problems.append(Problem(None, readable, "has a name that is not UTF-8: rename it"))
        elif len(parts) == (4 if splits else 3):
            rows.append(Row(None, file, parts[-3], (parts[-2],), parts[0] if splits else ""))
        elif Path(file).suffix.lower() in SUFFIXES:  # a README beside the folders does no harm
            problems.append(Problem(None, file, _astray(splits)))
    if not rows and not problems:
        raise DataError(
            f"{folder} holds no image at CLASS/BIAS/FILE or SPLIT/CLASS/BIAS/FILE: arrange it so, "
            "or give a table with --table, --label and --bias"
        )
    return Rows(rows, problems, [], splits=splits)


def _astray(splits: bool) -> str:
    if splits:
        return "does not lie at SPLIT/CLASS/BIAS/FILE, as others do"
    return (
        "does not lie at CLASS/BIAS/FILE, nor do all others at SPLIT/CLASS/BIAS/FILE in folders "
        "train, val and test"
    )


def _walk(folder: Path) -> tuple[list[tuple[str, ...]], list[Problem]]:
    """Return the parts of each file's path in order, and links, which are not followed."""

    def stop(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error

    files: list[tuple[str, ...]] = []
    problems = []
    for top, folders, inside in os.walk(folder, onerror=stop):
        here = Path(top).relative_to(folder)
        folders[:] = [f for f in folders if not f.startswith(".")]
        problems += [
            Problem(None, (here / f).as_posix(), "is a symbolic link to a folder: move it there")
            for f in folders
            if Path(top, f).is_symlink()
        ]
        for name in inside:
            if not name.startswith(".") and name.lower() not in LITTER:
                files.append((*here.parts, name))
    return sorted(files), problems

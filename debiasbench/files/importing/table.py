"""Rows from a CSV or TSV table."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError, OptionError, suggestion
from debiasbench.common.regular import check_regular
from debiasbench.common.wording import shortened
from debiasbench.files.importing.source import EVERY, Problem, Row, Rows
from debiasbench.files.importing.vetting import locate

if TYPE_CHECKING:
    from debiasbench.files.importing.source import Source

FILE_COLUMNS = {
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_file",
    "image_id",
    "image_path",
    "img",
    "img_file",
    "img_filename",
    "img_path",
    "path",
}
INSPECTED = 1000  # rows that are inspected to find the column of file names


def read_table(source: Source, table: Path) -> Rows:
    """Read the rows of a table; raises `DataError` or `OptionError` if it cannot be used."""
    if not (source.label and source.bias):
        raise OptionError(f"Name the columns of {table} with --label and --bias")
    records = _records(table)
    if len(records) < 2:
        raise DataError(f"{table} has no rows. It needs a header and one row per {source.noun}")
    header = [name.strip() for name in records[0][1]]
    _check_columns(source, table, header)
    columns = _content(source, table, header)
    cells, problems = [], []
    for line, fields in records[1:]:
        if len(fields) == len(header):
            values = (value.strip() for value in fields)
            cells.append((line, dict(zip(header, values, strict=True))))
        else:
            message = f"has {len(fields)} fields, but the header has {len(header)}"
            problems.append(Problem(line, "", message))
    file = "" if columns else source.file
    if file is None:
        file = _file_column(source, table, header, [cell for _, cell in cells])
    rows = [
        Row(
            line,
            cell[file] if file else "",
            cell[source.label],
            tuple(cell[column] for column in source.bias),
            cell[source.split] if source.split is not None else "",
            content=tuple(cell[column] for column in columns),
        )
        for line, cell in cells
    ]
    notes = _notes(source, header, file)
    return Rows(rows, problems, notes, splits=source.split is not None, columns=columns)


def _content(source: Source, table: Path, header: list[str]) -> tuple[str, ...]:
    """Return the columns of the texts or features of a sample; none for images."""
    if source.features != EVERY:
        return source.text or source.features
    used = {source.label, *source.bias, source.split}
    columns = tuple(c for c in header if c and c not in used and c.lower() != "split")
    if not columns:
        raise DataError(f"{table} has no columns besides label, bias and split. Add features")
    if double := [column for column, n in Counter(columns).items() if n > 1]:
        raise DataError(f"{table} has two columns {double[0]!r}. Rename one of them")
    return columns


def _notes(source: Source, header: list[str], file: str) -> list[str]:
    notes = [] if source.file or not file else [f"Column {file!r} contains the file names."]
    unused = [c for c in header if c.lower() == "split"]
    if source.split is None and unused:
        notes.append(
            f"Column {unused[0]!r} is not used. To use it as the split, add --split {unused[0]}."
        )
    return notes


def _records(table: Path) -> list[tuple[int, list[str]]]:
    """Read all records that are not blank, each with the number of its first line."""
    try:
        check_regular(table)
        raw = table.read_bytes()
    except OSError as error:
        raise DataError(
            f"{shortened(str(table))} cannot be read: {error.strerror or error}"
        ) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{table}, line {line}, is not UTF-8. Save the table as UTF-8") from error
    delimiter = "\t" if table.suffix.lower() in {".tsv", ".tab"} else ","
    # strict: a quote that is never closed would swallow all following rows
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    records, line = [], 1
    limit = csv.field_size_limit(max(len(text), 1))  # a field may be a long document
    try:
        for fields in reader:
            if any(value.strip() for value in fields):
                records.append((line, fields))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{table} cannot be read from line {line} on ({error}). Close every quote, and double "
            "the quotes inside a field"
        ) from error
    finally:
        csv.field_size_limit(limit)
    return records


def _check_columns(source: Source, table: Path, header: list[str]) -> None:
    named = (source.label, *source.bias, source.file, source.split, *source.text)
    used = [c for c in named if c is not None]
    features = () if source.features == EVERY else source.features
    once = [*used, *features]
    # the bias may be a feature, too
    used += [c for c in (*features, *source.categorical) if c not in source.bias]
    counts = Counter(header)
    if absent := [column for column in dict.fromkeys(used) if column not in counts]:
        listed = ", ".join(map(repr, absent))
        guesses = "".join(suggestion(column, header) for column in absent)
        separated = len(header) == 1 and any(mark in header[0] for mark in ";\t|")
        hint = ". Fields are separated by commas in .csv files, by tabs in .tsv files"
        raise DataError(
            f"{table} has no column {listed}.{guesses} Columns: {', '.join(header)}"
            + (hint if separated else "")
        )
    if double := [column for column in used if counts[column] > 1]:
        raise DataError(f"{table} has two columns {double[0]!r}. Rename one of them")
    once = [c for c in once if c not in features or c not in source.bias]
    if repeated := [column for column, n in Counter(once).items() if n > 1]:
        names = "--text, --text-pair" if source.text else "--features" if features else "--file"
        raise OptionError(
            f"Column {repeated[0]!r} is used twice. --label, --bias, --split and {names} must name "
            "different columns"
        )
    if features and (loose := [c for c in source.categorical if c not in features]):
        raise OptionError(f"--categorical {loose[0]}: it is not one of the --features")


def _file_column(
    source: Source, table: Path, header: list[str], cells: list[dict[str, str]]
) -> str:
    """Find the column of file names: by its title, else the only one whose values are files."""
    used = {source.label, *source.bias, source.split}
    free = [column for column in header if column and column not in used]
    titled = [column for column in free if column.lower() in FILE_COLUMNS]
    if len(titled) == 1:
        return titled[0]
    base = Path(os.path.realpath(source.images))
    with_files = [
        column
        for column in titled or free
        if any(isinstance(locate(base, cell[column]), Path) for cell in cells[:INSPECTED])
    ]
    if len(with_files) == 1:
        return with_files[0]
    candidates = ", ".join(with_files or titled or free)
    if not candidates:
        raise DataError(
            f"{table} has no column for the file names besides label, bias and split. Add one"
        )
    raise DataError(
        f"Cannot tell which column of {table} contains the file names. Use --file COLUMN with one "
        f"of: {candidates}"
    )

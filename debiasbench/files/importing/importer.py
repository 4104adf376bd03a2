"""Import images, texts or tables as a data set under the data root, completely or not at all."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError, OptionError
from debiasbench.common.folders import is_folder
from debiasbench.common.names import NAME
from debiasbench.common.wording import shortened
from debiasbench.files.importing import labels, place, vetting
from debiasbench.files.importing.balance import balance
from debiasbench.files.importing.features import FeatureReader
from debiasbench.files.importing.folder import FOLDER, LONGEST_NAME, where
from debiasbench.files.importing.groups import Plan, oddities, plan
from debiasbench.files.importing.passages import TextReader
from debiasbench.files.importing.pixels import Reader
from debiasbench.files.importing.source import BadRows, bad_rows
from debiasbench.files.importing.table import read_table
from debiasbench.files.importing.tree import read_tree

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from debiasbench.common.progress import Progress
    from debiasbench.core.data import Task
    from debiasbench.files.importing.source import Problem, Row, Rows, Source

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Finished:
    """A finished import. `task` is memory-mapped from `folder`; `notes` are for the user."""

    folder: Path
    digest: str
    task: Task
    left_out: tuple[Problem, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def import_data(
    name: str,
    source: Source,
    root: Path,
    *,
    skip_bad: bool = False,
    replace: bool = False,
    taken: Collection[str] = (),
    progress: Progress | None = None,
) -> Finished:
    """Write the samples as the data set `name` under `root`, completely or not at all.

    Equal samples, labels and options give an equal digest. `skip_bad`: leave out rows that cannot
    be imported. `replace`: replace an existing import of that name, which is kept until the new one
    is complete. `taken`: names that other data sets use.

    Raises `BadRows` with the problems of all rows, `OptionError` for an invalid name or column,
    `BusyError` while another process imports the same name, and `DataError` for anything else.
    """
    _check_name(name, taken)
    _check_free(root, name, replace=replace)
    written = _read(source)
    named, doubts = labels.checked(written.rows, source)
    vetted = vetting.vet(named, source, splits=written.splits)
    rows = vetted.good if written.splits else vetting.split(vetted.good, source.seed)
    rows.sort(key=lambda row: SPLITS.index(row.split))  # stable; each split is a slice
    problems = written.problems + vetted.problems
    classes = {row.label for row in named if labels.is_label(row.label)}
    known = {labels.plain(label) for label in classes}
    classes |= {label for label in written.classes if labels.plain(label) not in known}

    def planned(rows: list[Row]) -> Plan:
        return plan(rows, source, classes, splits=written.splits)

    def balanced(rows: list[Row]) -> tuple[list[Row], list[str]]:
        if not source.balance_test:
            return rows, []
        rows, note = balance(rows, source)
        return rows, [note]

    if not problems:
        planned(balanced(rows)[0])  # finds errors of the whole before anything is decoded
    whole = root / FOLDER / name
    with place.claimed(whole):
        _check_free(root, name, replace=replace)  # another process may have imported it meanwhile
        place.fresh(whole).mkdir()
        reader = _reader(source, written.columns, rows, vetted.doubtful, progress)
        with tempfile.TemporaryFile(dir=whole.parent) as pixels:
            if source.balance_test and skip_bad:
                # a bad sample must not be drawn instead of a good one
                good = reader.check([row for row in rows if row.split == "test"])
                rows = [row for row in rows if row.split != "test"] + good
            balance_notes: list[str] = []
            if skip_bad or not problems:
                rows, balance_notes = balanced(rows)
                rows = reader.write(rows, pixels.fileno(), whole.parent)
            else:
                reader.check(rows)
            if not skip_bad:
                reader.check(vetted.doubtful)
            problems = sorted(problems + reader.problems, key=lambda p: (p.line or 0, p.file))
            if problems and not skip_bad:
                total = len(written.rows) + len(written.problems)
                raise BadRows(problems, total, source.noun)
            result = planned(rows)
            task = result.task(reader.mapped(pixels.fileno()))
            digest = _save(task, whole, source, reader.facts, left_out=bad_rows(problems))
        place.swap(whole)
        split_notes = [*([] if written.splits else [_split_note()]), *balance_notes]
        notes = [*written.notes, *split_notes, result.note()]
        return _finished(whole, digest, problems, notes, doubts, reader, source)


def _reader(
    source: Source,
    columns: tuple[str, ...],
    rows: list[Row],
    doubtful: list[Row],
    progress: Progress | None,
) -> Reader | TextReader | FeatureReader:
    """Return what reads the samples of rows; `columns`: those of their content."""
    if source.text:
        return TextReader()
    if source.features:
        training = [row for row in rows if row.split == "train"]
        return FeatureReader(columns, source.categorical, training)
    return Reader(source, rows + doubtful, progress)


def _read(source: Source) -> Rows:
    if source.text or source.features:
        if source.table is None:
            raise OptionError("Texts and features are columns of a table: give it with --table")
        return read_table(source, source.table)
    try:
        found = is_folder(source.images)
    except OSError as error:
        raise DataError(f"{source.images} cannot be read: {error.strerror or error}") from error
    if not found:
        raise DataError(
            f"{shortened(str(source.images))} is not a folder. Give the folder of images with "
            "--images"
        )
    if source.table is None:
        return read_tree(source.images)
    return read_table(source, source.table)


def _check_name(name: str, taken: Collection[str]) -> None:
    if not NAME.fullmatch(name) or name.endswith(":") or len(name) > LONGEST_NAME:
        raise OptionError(
            f"{shortened(name)!r} is not a valid name for a data set. Use at most {LONGEST_NAME} "
            "lower-case letters, digits, '_', '.' and '-', and begin with a letter or digit"
        )
    if name in taken:
        raise OptionError(f"Another data set has the name {name!r}. Choose another name")


def _check_free(root: Path, name: str, *, replace: bool) -> None:
    folder = where(root, name)
    if folder is not None and not replace:
        raise DataError(
            f"{name!r} is already imported, in {folder}. Choose another name, or replace it with "
            "--replace"
        )


def _split_note() -> str:
    parts = "/".join(map(str, vetting.PERCENT.values()))
    return (
        f"Each group is split at random into train/val/test, {parts} %. --seed gives another split."
    )


def _save(
    task: Task, whole: Path, source: Source, facts: dict[str, object], *, left_out: int
) -> str:
    from debiasbench.files import task_folder

    is_image = source.noun == "image"
    described = {
        **asdict(source),
        "images": str(source.images.resolve()) if is_image else None,
        "table": None if source.table is None else str(source.table.resolve()),
    }
    counts = {name: len(split) for name, split in task.splits().items()}
    more = {"source": described, "images": counts, "left_out": left_out, **facts}
    return task_folder.save(task, place.fresh(whole), more)


def _finished(
    whole: Path,
    digest: str,
    problems: list[Problem],
    notes: list[str],
    doubts: list[str],
    reader: Reader | TextReader | FeatureReader,
    source: Source,
) -> Finished:
    from debiasbench.files import task_folder

    task = task_folder.load(whole, verify=False)
    warnings = [*doubts, *reader.warnings, *oddities(task, source.noun)]
    if reader.leaks:
        earlier, later = reader.leaks[0]
        equal = (
            "Texts that are equal to a text"
            if source.text
            else ("Images with the same pixels as an image")
        )
        warnings.insert(
            0,
            f"{equal} of another split: {len(reader.leaks):,}, "
            f"such as {later} ({later.split}) and {earlier} ({earlier.split})",
        )
    return Finished(whole, digest, task, tuple(problems), tuple(notes), tuple(warnings))

"""Import images as a data set under the data root, completely or not at all."""

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
from debiasbench.files.importing.folder import FOLDER, LONGEST_NAME, where
from debiasbench.files.importing.groups import Plan, oddities, plan
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
    """Write the images as the data set `name` under `root`, completely or not at all.

    Equal images, labels and options give an equal digest. `skip_bad`: leave out images that cannot
    be imported. `replace`: replace an existing import of that name, which is kept until the new one
    is complete. `taken`: names that other data sets use.

    Raises `BadRows` with the problems of all images, `OptionError` for an invalid name or column,
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
        reader = Reader(source, rows + vetted.doubtful, progress)
        with tempfile.TemporaryFile(dir=whole.parent) as pixels:
            if source.balance_test and skip_bad:
                # a bad image must not be drawn instead of a good one
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
                raise BadRows(problems, len(written.rows) + len(written.problems))
            result = planned(rows)
            task = result.task(reader.mapped(pixels.fileno()))
            digest = _save(task, whole, source, left_out=bad_rows(problems))
        place.swap(whole)
        split_notes = [*([] if written.splits else [_split_note()]), *balance_notes]
        notes = [*written.notes, *split_notes, result.note()]
        return _finished(whole, digest, problems, notes, doubts, reader)


def _read(source: Source) -> Rows:
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


def _save(task: Task, whole: Path, source: Source, *, left_out: int) -> str:
    from debiasbench.files import task_folder

    described = {
        **asdict(source),
        "images": str(source.images.resolve()),
        "table": None if source.table is None else str(source.table.resolve()),
    }
    counts = {name: len(split) for name, split in task.splits().items()}
    more = {"source": described, "images": counts, "left_out": left_out}
    return task_folder.save(task, place.fresh(whole), more)


def _finished(
    whole: Path,
    digest: str,
    problems: list[Problem],
    notes: list[str],
    doubts: list[str],
    reader: Reader,
) -> Finished:
    from debiasbench.files import task_folder

    task = task_folder.load(whole, verify=False)
    warnings = [*doubts, *oddities(task)]
    if reader.leaks:
        earlier, later = reader.leaks[0]
        warnings.insert(
            0,
            f"Images with the same pixels as an image of another split: {len(reader.leaks):,}, "
            f"such as {later} ({later.split}) and {earlier} ({earlier.split})",
        )
    return Finished(whole, digest, task, tuple(problems), tuple(notes), tuple(warnings))

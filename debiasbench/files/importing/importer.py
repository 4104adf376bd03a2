"""From a source to a data set under the data root, whole or not at all."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError, OptionError
from debiasbench.common.names import NAME
from debiasbench.files.importing import place, vetting
from debiasbench.files.importing.folder import FOLDER, where
from debiasbench.files.importing.groups import Plan, oddities, plan
from debiasbench.files.importing.pixels import Reader
from debiasbench.files.importing.rows import read
from debiasbench.files.importing.source import BadRows, bad_rows

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from debiasbench.common.progress import Progress
    from debiasbench.core.data import Task
    from debiasbench.files.importing.source import Problem, Row, Source

LONGEST_NAME = 100  # characters
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Finished:
    """An import that is done. `task` is mapped from `folder`; `notes` say what was decided."""

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
    """Write the images as the data set `name` under `root`, whole or not at all.

    Equal images, labels and options give an equal digest. `skip_bad`: leave out what cannot be
    imported. `replace`: take the place of what `name` held; it stays until the new one is whole.
    `taken`: names that are no longer free.

    Raises `BadRows` with everything that is wrong with single images, `OptionError` for a bad
    name or column, `BusyError` while another process imports the same name, else `DataError`.
    """
    _check_name(name, taken)
    _check_free(root, name, replace=replace)
    written = read(source)
    vetted = vetting.vet(written.rows, source, splits=written.splits)
    rows = vetted.good if written.splits else vetting.split(vetted.good, source.seed)
    rows.sort(key=lambda row: SPLITS.index(row.split))  # stable, so a split is a slice of them all
    problems = written.problems + vetted.problems
    labels = {row.label for row in written.rows if row.label}

    def planned(rows: list[Row]) -> Plan:
        return plan(rows, source, labels, splits=written.splits)

    if not problems:
        planned(rows)  # what is wrong as a whole shows before anything is decoded
    whole = root / FOLDER / name
    with place.claimed(whole):
        _check_free(root, name, replace=replace)  # another process may have been faster
        place.fresh(whole).mkdir()
        reader = Reader(source, rows + vetted.doubtful, progress)
        with tempfile.TemporaryFile(dir=whole.parent) as pixels:
            if skip_bad or not problems:
                rows = reader.write(rows, pixels.fileno(), whole.parent)
            else:
                reader.look(rows)
            if not skip_bad:
                reader.look(vetted.doubtful)
            problems = sorted(problems + reader.problems, key=lambda p: (p.line or 0, p.file))
            if problems and not skip_bad:
                raise BadRows(problems, len(written.rows) + len(written.problems))
            made = planned(rows)
            task = made.task(reader.mapped(pixels.fileno()))
            digest = _save(task, whole, source, left_out=bad_rows(problems))
        place.swap(whole)
        notes = [*written.notes, *([] if written.splits else [_split_note()]), made.note()]
        return _finished(whole, digest, problems, notes, reader)


def _check_name(name: str, taken: Collection[str]) -> None:
    if not NAME.fullmatch(name) or name.endswith(":") or len(name) > LONGEST_NAME:
        raise OptionError(
            f"{name!r} cannot name a data set: take lower-case letters, digits, '_', '.' and '-', "
            f"{LONGEST_NAME} at most, a letter or digit first"
        )
    if name in taken:
        raise OptionError(f"{name!r} names another data set already: choose another name")


def _check_free(root: Path, name: str, *, replace: bool) -> None:
    folder = where(root, name)
    if folder is not None and not replace:
        raise DataError(
            f"{name!r} is imported already, in {folder}: choose another name, or replace it with "
            "--replace"
        )


def _split_note() -> str:
    parts = "/".join(map(str, vetting.PERCENT.values()))
    return f"Split here, each group {parts} % into train/val/test; --seed decides which images."


def _save(task: Task, whole: Path, source: Source, *, left_out: int) -> str:
    from debiasbench.files import task_folder

    told = {
        **asdict(source),
        "images": str(source.images.resolve()),
        "table": None if source.table is None else str(source.table.resolve()),
    }
    counts = {name: len(split) for name, split in task.splits().items()}
    more = {"source": told, "images": counts, "left_out": left_out}
    return task_folder.save(task, place.fresh(whole), more)


def _finished(
    whole: Path, digest: str, problems: list[Problem], notes: list[str], reader: Reader
) -> Finished:
    from debiasbench.files import task_folder

    task = task_folder.load(whole, verify=False)
    warnings = oddities(task)
    if reader.leaks:
        one, other = reader.leaks[0]
        warnings.insert(
            0,
            f"Images that other splits hold too, pixel by pixel: {len(reader.leaks):,}, such as "
            f"{other} ({other.split}) and {one} ({one.split})",
        )
    return Finished(whole, digest, task, tuple(problems), tuple(notes), tuple(warnings))

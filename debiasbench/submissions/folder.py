"""The folder of a submission: what it may hold, read without following links (E00 to E02)."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError
from debiasbench.common.regular import read_regular
from debiasbench.common.wording import listed, shown
from debiasbench.records import trial as trials
from debiasbench.records.beside import PREDICTIONS, prediction_key
from debiasbench.records.checks.finding import Finding
from debiasbench.records.checks.labels import NAMES
from debiasbench.records.inference import INFERRED
from debiasbench.records.reading import SEARCH, TRIAL, read
from debiasbench.submissions.about import FILE, About, parsed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debiasbench.records.record import Record, Result
    from debiasbench.records.trial import Trial

NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,39}")
RECORDS = "records"
SEARCHES = f"{RECORDS}{os.sep}{trials.FOLDER}"
MOST_FILES = 500
MOST_BYTES = 8 << 20  # of a file
MOST_TEXT = 64 << 10  # bytes of submission.toml
MOST_HEADER = 1 << 20  # bytes of the header of a predictions file
INTEGERS = {"U8", "U16", "U32", "I32", "I64"}
INFERENCES = INTEGERS | {"BOOL", "F32", "F64"}  # pseudo-groups, flags and scores


@dataclass
class Submission:
    """What could be read of a folder, and what is wrong with it, by file.

    `about`: None if `submission.toml` is missing or wrong. `records`: each with its path.
    `trials`: likewise. `searches`: paths of files, which were not read.
    """

    name: str
    folder: Path
    about: About | None = None
    records: list[tuple[Path, Record]] = field(default_factory=list)
    searches: list[Path] = field(default_factory=list)
    trials: list[tuple[Path, Trial]] = field(default_factory=list)
    findings: dict[str, list[Finding]] = field(default_factory=dict)

    def add(self, file: str, code: str, message: str) -> None:
        """Add a finding about a file, whose path is in the folder."""
        self.findings.setdefault(file, []).append(Finding(code, message))


def opened(folder: Path) -> Submission:
    """Read a submission; raises `RecordError` for a path that is not a folder."""
    if not folder.is_dir() or folder.is_symlink():
        raise RecordError(f"{folder} is not a folder: give the folder of a submission")
    folder = folder.resolve()  # links above it are the reader's own
    submission = Submission(folder.name, folder)
    if not NAME.fullmatch(folder.name):
        submission.add(
            ".", "E00", f"the name {shown(folder.name)} must have 2 to 40 characters of a-z, 0-9, -"
        )
    try:
        names = _files(folder)
    except RecordError as error:
        submission.add(".", "E00", str(error))
        return submission
    for name, wrong in names.items():
        if wrong:
            submission.add(name, "E00", wrong)
    usable = {name for name, wrong in names.items() if not wrong}
    if FILE in usable:
        text = read_regular(folder / FILE, MOST_TEXT).decode(errors="replace")
        submission.about, problems = parsed(text)
        for problem in problems:
            submission.add(FILE, "E00", problem)
    elif FILE not in names:
        submission.add(FILE, "E00", "it is missing. `debiasbench submit prepare` writes one")
    _read_records(submission, {name for name in usable if Path(name).parent == Path(RECORDS)})
    _read_trials(submission, {name for name in usable if Path(name).parent == Path(SEARCHES)})
    return submission


def _read_records(submission: Submission, usable: set[str]) -> None:
    unread = set()  # what is wrong with the predictions of such records is not known
    for name in sorted(name for name in usable if name.endswith(".json")):
        path = submission.folder / name
        try:
            record = read(path)
        except RecordError as error:
            submission.add(name, "E01", str(error).removeprefix(f"{path} "))
            unread.add(path.name.removesuffix(".json") + PREDICTIONS)
            continue
        for finding in _misplaced(submission.folder, name, record, usable):
            submission.add(name, finding.code, finding.message)
        submission.records.append((path, record))
    if not submission.records:
        submission.add(RECORDS, "E00", f"there is no record that can be read in {RECORDS}{os.sep}")
    named = unread | {record.spec.stem + PREDICTIONS for _, record in submission.records}
    for name in usable:
        if name.endswith(PREDICTIONS) and Path(name).name not in named:
            submission.add(name, "E00", "no record in the folder has these predictions")


def _read_trials(submission: Submission, usable: set[str]) -> None:
    """Check names and predictions of the trials, before anything compares them."""
    named = set()
    for name in sorted(name for name in usable if name.endswith(TRIAL)):
        path = submission.folder / name
        try:
            trial = trials.read(path)
        except RecordError as error:
            submission.add(name, "E01", str(error).removeprefix(f"{path} "))
            named.add(path.name.removesuffix(TRIAL) + PREDICTIONS)
            continue
        for finding in _misplaced(submission.folder, name, trial, usable):
            submission.add(name, finding.code, finding.message)
        named.add(trial.spec.stem + PREDICTIONS)
        submission.trials.append((path, trial))
    for name in usable:
        if name.endswith(PREDICTIONS) and Path(name).name not in named:
            submission.add(name, "E00", "no trial in the folder has these predictions")
    submission.searches = [
        submission.folder / name for name in sorted(usable) if name.endswith(SEARCH)
    ]


def _files(folder: Path) -> dict[str, str]:
    """Return every file by its path in the folder, with what is wrong with it, or "".

    Raises `RecordError` if there are too many.
    """
    found: dict[str, str] = {}
    for place in (folder, folder / RECORDS, folder / SEARCHES):
        if place.is_symlink() or not place.is_dir():
            continue
        for entry in sorted(os.scandir(place), key=lambda e: e.name):
            name = os.path.relpath(entry.path, folder)
            if name in {RECORDS, SEARCHES} and entry.is_dir(follow_symlinks=False):
                continue
            found[name] = _wrong(entry, name)
            if len(found) > MOST_FILES:
                raise RecordError(f"there are more than {MOST_FILES} files")
    return found


def _wrong(entry: os.DirEntry[str], name: str) -> str:
    """Return why a file must not be in a submission, "" if it may."""
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return "it is a symbolic link. Put the file itself here"
    if not stat.S_ISREG(status.st_mode):
        return f"it is not a file. A submission has {FILE} and {RECORDS}/"
    endings = {
        RECORDS: (".json", PREDICTIONS),
        SEARCHES: (TRIAL, SEARCH, PREDICTIONS),
    }.get(str(Path(name).parent), ())
    if name != FILE and not name.endswith(endings):
        return (
            f"it does not belong here. A submission has {FILE}, records with their predictions in "
            f"{RECORDS}/, and searches with their trials in {SEARCHES}/"
        )
    most = MOST_TEXT if name == FILE else MOST_BYTES
    if status.st_size > most:
        return f"it has {status.st_size:,} bytes, and {most:,} are the most"
    return ""


def _misplaced(folder: Path, name: str, record: Result, usable: set[str]) -> Iterator[Finding]:
    stem, ending = record.spec.stem, TRIAL if name.endswith(TRIAL) else ".json"
    if Path(name).name != f"{stem}{ending}":
        yield Finding("E01", f"its file name must be {stem}{ending}")
    if not record.outcomes:
        return
    file = str(Path(name).with_name(stem + PREDICTIONS))
    if record.predictions is None or record.predictions["file"] != Path(file).name:
        yield Finding("E02", f"it does not name its predictions {Path(file).name}")
    elif file not in usable:
        yield Finding("E02", f"its predictions are missing: {Path(file).name}")
    else:
        for problem in _wrong_tensors(folder / file, record):
            yield Finding("E02", f"{Path(file).name} {problem}")


def _wrong_tensors(file: Path, record: Result) -> Iterator[str]:
    """Yield what is wrong with the header of a predictions file, before anything is loaded."""
    content = read_regular(file, MOST_BYTES)
    length = int.from_bytes(content[:8], "little")
    if length > min(MOST_HEADER, len(content) - 8):
        yield f"has a header of {length:,} bytes, and {MOST_HEADER:,} are the most"
        return
    try:
        header = json.loads(content[8 : 8 + length])
        kinds = {k: v["dtype"] for k, v in header.items() if k != "__metadata__"}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        yield "has no header of a safetensors file"
        return
    keys = {prediction_key(outcome.epoch) for outcome in record.outcomes.values()}
    expected = {f"{split}.{key}" for split in record.judged for key in keys}
    for name, kind in kinds.items():
        allowed = INFERENCES if name.startswith(INFERRED) else INTEGERS
        if name not in expected | set(NAMES) and not name.startswith(INFERRED):
            yield f"has {shown(name)}, which no selection rule of the record needs"
        elif kind not in allowed:
            types = listed(sorted(allowed))
            yield f"has {shown(name)} of type {shown(kind)}, which must be one of {types}"

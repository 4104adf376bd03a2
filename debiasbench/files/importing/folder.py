"""Where imported data sets are stored under the data root, and how to find one by name."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from debiasbench.common.errors import DataError, suggestion
from debiasbench.common.folders import is_folder
from debiasbench.common.regular import check_regular
from debiasbench.common.wording import shortened

FOLDER = "imported"
LONGEST_NAME = 100  # characters


def where(root: Path, name: str) -> Path | None:
    """Return the folder of an imported data set, or None if there is none of that name.

    Raises `DataError` if the folder of all imports cannot be read.
    """
    if not name or name.startswith(".") or Path(name).name != name or len(name) > LONGEST_NAME:
        return None
    whole = root / FOLDER / name
    # a process that was killed while replacing a data set may have left the old one set aside
    try:
        return next((f for f in (whole, aside(whole), whole) if is_folder(f)), None)
    except OSError as error:
        raise DataError(_unreadable(whole.parent, error)) from error


def aside(whole: Path) -> Path:
    """Return where an existing data set is kept while a new one replaces it."""
    return whole.with_name(f".{whole.name}.old")


def names(root: Path) -> list[str]:
    """Return the names of the data sets imported under a data root, sorted.

    There are none, and a warning, if the folder cannot be read.
    """
    try:
        if not is_folder(root / FOLDER):
            return []
        entries = [entry.name for entry in (root / FOLDER).iterdir()]
    except OSError as error:
        warnings.warn(_unreadable(root / FOLDER, error), stacklevel=2)
        return []
    waiting = [e[1:].removesuffix(".old") for e in entries if e[:1] == "." and e.endswith(".old")]
    return sorted({n for n in (*entries, *waiting) if where(root, n) is not None})


def find(root: Path, name: str) -> str | None:
    """Return the checksum of an imported data set, or None if there is none of that name.

    Reads one small file, and imports no large package. Raises `DataError` if the file is damaged.
    """
    folder = where(root, name)
    if folder is None:
        return None
    file = folder / "task.json"  # not through `task_folder`, which imports torch
    try:
        check_regular(file)
        return str(json.loads(file.read_text("utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read ({error}). {again(name)}") from error


def _unreadable(folder: Path, error: OSError) -> str:
    return (
        f"{shortened(str(folder))} cannot be read ({error.strerror or error}). Check its "
        "permissions, or choose another folder with --data-root or DEBIASBENCH_DATA"
    )


def missing(root: Path, name: str) -> str:
    """Return an error message for a name that was not imported."""
    known = names(root)
    return (
        f"No data set {shortened(name)!r} is imported under {shortened(str(root))}."
        f"{suggestion(name, known)} "
        f"Imported: {', '.join(known) or 'none'}. If it is elsewhere, set --data-root or "
        f"DEBIASBENCH_DATA to the folder that contains {FOLDER}/. To import it: debiasbench data "
        f"import {shortened(name) or 'NAME'} --images FOLDER, or --text COLUMN, or --features"
    )


def again(name: str) -> str:
    """Return the advice to import a data set again."""
    return f"Import it again with --replace: debiasbench data import {name} --replace ..."

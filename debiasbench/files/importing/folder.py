"""Where imported data sets are stored under the data root, and how to find one by name."""

from __future__ import annotations

import json
from pathlib import Path

from debiasbench.common.errors import DataError, suggestion

FOLDER = "imported"


def where(root: Path, name: str) -> Path | None:
    """Return the folder of an imported data set, or None if there is none of that name."""
    if not name or name.startswith(".") or Path(name).name != name:
        return None
    whole = root / FOLDER / name
    # a process that was killed while replacing a data set may have left the old one set aside
    return next((f for f in (whole, aside(whole), whole) if f.is_dir()), None)


def aside(whole: Path) -> Path:
    """Return where an existing data set is kept while a new one replaces it."""
    return whole.with_name(f".{whole.name}.old")


def names(root: Path) -> list[str]:
    """Return the names of the data sets imported under a data root, sorted."""
    try:
        entries = [entry.name for entry in (root / FOLDER).iterdir()]
    except OSError:
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
        return str(json.loads(file.read_text("utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read ({error}). {again(name)}") from error


def missing(root: Path, name: str) -> str:
    """Return an error message for a name that was not imported."""
    known = names(root)
    return (
        f"No data set {name!r} is imported under {root}.{suggestion(name, known)} "
        f"Imported: {', '.join(known) or 'none'}. If it is elsewhere, set --data-root or "
        f"DEBIASBENCH_DATA to the folder that contains {FOLDER}/. To import it: debiasbench data "
        f"import {name or 'NAME'} --images FOLDER"
    )


def again(name: str) -> str:
    """Return the advice to import a data set again."""
    return f"Import it again: debiasbench data import {name} --replace --images FOLDER"

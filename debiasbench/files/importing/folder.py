"""Where imported data sets lie under the data root, and how they are found by name."""

from __future__ import annotations

import json
from pathlib import Path

from debiasbench.common.errors import DataError, suggestion

FOLDER = "imported"


def where(root: Path, name: str) -> Path | None:
    """Return the folder of an imported data set, None if there is none of that name."""
    if not name or name.startswith(".") or Path(name).name != name:
        return None
    whole = root / FOLDER / name
    # a process that died while it replaced a data set may have left the old one set aside
    return next((f for f in (whole, aside(whole), whole) if f.is_dir()), None)


def aside(whole: Path) -> Path:
    """Return where an imported data set waits while a new one takes its place."""
    return whole.with_name(f".{whole.name}.old")


def names(root: Path) -> list[str]:
    """List what is imported under a data root, sorted."""
    try:
        entries = [entry.name for entry in (root / FOLDER).iterdir()]
    except OSError:
        return []
    waiting = [e[1:].removesuffix(".old") for e in entries if e[:1] == "." and e.endswith(".old")]
    return sorted({n for n in (*entries, *waiting) if where(root, n) is not None})


def find(root: Path, name: str) -> str | None:
    """Return the checksum of an imported data set, None if there is none of that name.

    Reads one small file, and imports nothing heavy. Raises `DataError` if that file is damaged.
    """
    folder = where(root, name)
    if folder is None:
        return None
    file = folder / "task.json"  # `task_folder`, which knows its name, imports torch
    try:
        return str(json.loads(file.read_text("utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read ({error}). {again(name)}") from error


def missing(root: Path, name: str) -> str:
    """Say that nothing was imported as `name`, what was, and how to import."""
    known = names(root)
    return (
        f"No data set {name!r} was imported under {root}.{suggestion(name, known)} "
        f"Imported: {', '.join(known) or 'none'}. Give the folder that holds {FOLDER}/ with "
        "--data-root or DEBIASBENCH_DATA, or import it: debiasbench data import "
        f"{name or 'NAME'} --images FOLDER"
    )


def again(name: str) -> str:
    """Say how to import it once more."""
    return f"Import it again: debiasbench data import {name} --replace --images FOLDER"

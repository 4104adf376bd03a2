"""The user's own data, as `debiasbench data import` left them under the data root."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debiasbench.data import Dataset, Task
from debiasbench.errors import DataError, suggestion
from debiasbench.options import option

FOLDER = "imported"


@dataclass(frozen=True)
class Imported(Dataset):
    """Your own images, as `debiasbench data import` left them."""

    citation: ClassVar[str] = "Your own data: cite where they come from."
    source: ClassVar[str] = "`debiasbench data import NAME --images FOLDER`"

    name: str = option("", "the name under which the images were imported")
    digest: str = option("", "checksum that the data must have; empty: whichever is there")

    def load(self, root: Path) -> Task:
        """Images of the size and in the splits that the import wrote, mapped from the disk.

        Every byte is compared with its checksum. Raises `DataError` if nothing was imported under
        the name, or it is damaged, or not what `digest` says.
        """
        from debiasbench import taskfile

        folder = where(root, self.name)
        if folder is None:
            raise DataError(missing(root, self.name))
        try:
            found = taskfile.facts(folder)["digest"]
            if self.digest and found != self.digest:
                raise DataError(
                    f"{folder} holds other data (checksum {found[:16]}…) than asked for "
                    f"({self.digest[:16]}…): import those again, or leave dataset.digest out"
                )
            return taskfile.load(folder)
        except taskfile.DamagedTask as error:
            raise DataError(f"{error}. {_again(self.name)}") from error


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
    file = folder / "task.json"  # `taskfile`, which knows its name, imports torch
    try:
        return str(json.loads(file.read_text("utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read ({error}). {_again(name)}") from error


def missing(root: Path, name: str) -> str:
    """Say that nothing was imported as `name`, what was, and how to import."""
    known = names(root)
    return (
        f"No data set {name!r} was imported under {root}.{suggestion(name, known)} "
        f"Imported: {', '.join(known) or 'none'}. Give the folder that holds {FOLDER}/ with "
        "--data-root or DEBIASBENCH_DATA, or import it: debiasbench data import "
        f"{name or 'NAME'} --images FOLDER"
    )


def _again(name: str) -> str:
    return f"Import it again: debiasbench data import {name} --replace --images FOLDER"

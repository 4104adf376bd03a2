"""The files of a folder that may be records, in order of their paths."""

from __future__ import annotations

import os
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

Part = tuple[str, list[str], set[str]]


def listing(place: Path, problems: list[str]) -> list[Part]:
    """Return the files that may be records below a folder, in order of their paths.

    Each part is a folder, names of files in it, and those of them that are links. A folder with
    folders in it may occur several times. Hidden files and folders are skipped. Adds a message to
    `problems` for each folder that cannot be searched.
    """
    found: list[Part] = []
    left: list[str | Part] = [str(place)]
    while left:
        one = left.pop()
        if isinstance(one, tuple):
            found.append(one)
        else:
            left += reversed(_searched(one, problems))
    return found


def _searched(folder: str, problems: list[str]) -> list[str | Part]:
    """Return the folders in a folder, and the files between them, in order of their names."""
    try:
        with os.scandir(folder) as entries:
            seen = [e for e in entries if e.name[0] != "."]
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            problems.append(f"{error.filename} cannot be searched: {error.strerror}")
        return []
    base = "" if folder == "." else f"{folder.rstrip(os.sep)}{os.sep}"
    folders = {e.name for e in seen if _is_folder(e)}
    kept = [(e.name, e) for e in seen if e.name.endswith(".json") or e.name in folders]
    found: list[str | Part] = []
    files: Part | None = None
    for name, entry in sorted(kept, key=itemgetter(0)):
        if name not in folders:
            if files is None:
                files = folder, [], set()
                found.append(files)
            files[1].append(name)
            if entry.is_symlink():
                files[2].add(name)
        elif not entry.is_symlink():  # links may loop
            found.append(f"{base}{name}")
            files = None
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False

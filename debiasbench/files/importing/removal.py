"""Remove an imported data set, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from debiasbench.common.errors import DataError
from debiasbench.files.importing import place
from debiasbench.files.importing.folder import FOLDER, missing, where

WRITTEN = re.compile(r"(?:train|val|test)-[a-z0-9-]+\.npy|\.?task\.json.*")
"""Names of the files of a data set, and of an unfinished description of it."""


def check_removable(root: Path, name: str) -> Path:
    """Return the folder of an imported data set, if it contains only files of a data set.

    Raises `DataError` if there is no data set of that name, if the folder is a link or is outside
    the data root, and if it contains anything else.
    """
    folder = where(root, name)
    if folder is None:
        raise DataError(missing(root, name))
    if folder.is_symlink() or not folder.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"{folder} is in {folder.resolve()}, outside the data root {root}. Nothing was "
            "removed: remove it yourself, or set --data-root to the folder that contains it"
        )
    for file in sorted(folder.iterdir()):
        if not WRITTEN.fullmatch(file.name) or file.is_symlink() or not file.is_file():
            raise DataError(
                f"{file} is not part of a data set. Nothing was removed: move it to another "
                "folder first"
            )
    return folder


def remove(root: Path, name: str) -> Path:
    """Remove an imported data set and return where it was.

    A process that is killed meanwhile leaves either the whole data set, or a folder that is not
    taken for one and that the next import removes. Raises `DataError` as `check_removable` does,
    and `BusyError` while another process imports the same name.
    """
    check_removable(root, name)
    whole = root / FOLDER / name
    with place.claimed(whole, "removed"):
        folder = check_removable(root, name)
        place.discard(folder, whole)
    return folder

"""Rows from a tree of folders, CLASS/BIAS/FILE or SPLIT/CLASS/BIAS/FILE."""

from __future__ import annotations

import os
from pathlib import Path

from debiasbench.common.errors import DataError
from debiasbench.files.importing.source import Problem, Row, Rows
from debiasbench.files.importing.vetting import SPLITS

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
LITTER = {"thumbs.db", "desktop.ini"}  # files that systems add to folders of images
LITTER_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "lost+found", "__pycache__"}


def read_tree(folder: Path) -> Rows:
    """Read the rows of a tree.

    Raises `DataError` if it contains no image at a valid place, and for a folder of a class or of a
    bias value of which there is no image.
    """
    files, folders, problems = _walk(folder)
    tops = {parts[0].lower() for parts in files if len(parts) > 1}
    words = {word for word in SPLITS if not word.isdigit()}
    splits = bool(tops) and tops <= words and any(len(parts) == 4 for parts in files)
    rows = []
    for parts in files:
        file = "/".join(parts)
        readable = file.encode("utf-8", "backslashreplace").decode()
        if readable != file:
            problems.append(Problem(None, readable, "has a name that is not UTF-8: rename it"))
        elif len(parts) == (4 if splits else 3):
            rows.append(Row(None, file, parts[-3], (parts[-2],), parts[0] if splits else ""))
        elif Path(file).suffix.lower() in SUFFIXES:  # other files, such as a README, are ignored
            problems.append(Problem(None, file, _misplaced(splits)))
    if not rows and not problems:
        raise DataError(
            f"{folder} contains no image at CLASS/BIAS/FILE or SPLIT/CLASS/BIAS/FILE. Move the "
            "images there, or describe them with --table, --label and --bias"
        )
    depth = 2 if splits else 1  # of the folder of a class
    _check_empty(folder, folders, files, depth)
    classes = {parts[depth - 1] for parts in folders if len(parts) == depth}
    return Rows(rows, problems, [], splits=splits, classes=frozenset(classes))


def _check_empty(
    base: Path, folders: list[tuple[str, ...]], files: list[tuple[str, ...]], depth: int
) -> None:
    """Raise `DataError` for a class, or a bias value, that has folders but no image.

    `depth`: number of parts in the path of a class folder. A folder may be empty if another folder
    of the same name is not: then it is an empty group. Images at a wrong place count here, because
    they are reported on their own.
    """
    for kind, parts in (("class", depth), ("bias value", depth + 1)):
        named = {
            file[parts - 1]
            for file in files
            if len(file) == depth + 2
            or (len(file) > parts and Path(file[-1]).suffix.lower() in SUFFIXES)
        }
        for folder in sorted(folders):
            path = base.joinpath(*folder)
            if len(folder) == parts and folder[-1] not in named and not path.is_symlink():
                raise DataError(
                    f"{path} contains no image, and neither does any other folder of the {kind} "
                    f"{folder[-1]!r}. Add images, or remove the folder"
                )


def _misplaced(splits: bool) -> str:
    if splits:
        return "is not at SPLIT/CLASS/BIAS/FILE, as other images are"
    return "is not at CLASS/BIAS/FILE. Alternatively, move all images to SPLIT/CLASS/BIAS/FILE"


def _walk(
    folder: Path,
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]], list[Problem]]:
    """Return the parts of the paths of files, sorted, and of folders.

    There is a problem for each link to a folder.
    """

    def stop(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error

    files: list[tuple[str, ...]] = []
    all_folders: list[tuple[str, ...]] = []
    problems = []
    for top, folders, inside in os.walk(folder, onerror=stop):
        relative = Path(top).relative_to(folder)
        folders[:] = [
            f for f in folders if not f.startswith(".") and f.lower() not in LITTER_FOLDERS
        ]
        all_folders += [(*relative.parts, f) for f in folders]
        problems += [
            Problem(
                None,
                (relative / f).as_posix(),
                "is a symbolic link to a folder: replace it with the folder itself",
            )
            for f in folders
            if Path(top, f).is_symlink()
        ]
        for name in inside:
            if not name.startswith(".") and name.lower() not in LITTER:
                files.append((*relative.parts, name))
    return sorted(files), all_folders, problems

"""Unpack an archive safely: never outside its folder, never partly, never beyond its size."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

from debiasbench.core.download import normal_name
from debiasbench.files.archive_members import ArchiveError, members
from debiasbench.files.disk_space import require_space

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from debiasbench.common.progress import Progress
    from debiasbench.core.download import Download
    from debiasbench.files.archive_members import Member

CHUNK = 1 << 16  # bytes copied at a time


def unpack(download: Download, archive: Path, root: Path, progress: Progress) -> None:
    """Unpack into a temporary folder, then move the files to their places.

    A process that is killed leaves no incomplete file under a final name. Raises `ArchiveError`
    for an archive that is damaged, unsafe, too large, or without the files in `download.gives`.
    """
    folder = root / (download.into or "")
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{archive.name}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
    try:
        # the same path below `temporary` as below `root`, so that `gives` holds in both
        inner = temporary / (download.into or "")
        inner.mkdir(parents=True)
        with members(download, archive) as entries:
            _write(download, archive, _targets(archive, entries), inner, progress)
        if absent := download.missing(temporary, root):
            raise ArchiveError(
                f"{archive} does not contain {absent[0]}. Get the archive from another source"
            )
        _move(inner, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _targets(archive: Path, entries: Sequence[Member]) -> dict[str, Member]:
    """Return what to write at each path; a link is replaced by the file it points to.

    No link is ever created, so nothing can be written through one. Raises `ArchiveError` for a name
    outside the folder, a link to something that is not a file of the archive, and a device.
    """
    files = {normal_name(m.name): m for m in entries if m.kind == "file"}
    targets = {}
    for member in entries:
        name = normal_name(member.name)
        source = files.get(normal_name(member.link)) if member.kind == "link" else member
        if name is None:
            problem = "which is outside its folder"
        elif member.kind == "other":
            problem = "which is not a file, folder or link"
        elif source is None:
            problem = f"a link to {member.link!r}, which is not a file in the archive"
        else:
            targets[name] = source
            continue
        raise ArchiveError(
            f"{archive} contains {member.name!r}, {problem}. Nothing was unpacked. "
            "Get the archive from a source that you trust"
        )
    return targets


def _write(
    download: Download,
    archive: Path,
    targets: dict[str, Member],
    folder: Path,
    progress: Progress,
) -> None:
    """Write the members into an empty folder, within the declared size and the free space."""
    sizes = [member.size for member in targets.values()]
    known = None if None in sizes else sum(size or 0 for size in sizes)
    limit = shutil.disk_usage(folder).free
    if download.unpacked is not None:
        limit = min(limit, download.unpacked)
    if known is not None:
        require_space(known, folder, f"The content of {download.path}")
    progress.start(f"unpacking {download.path}", known or download.unpacked)
    try:
        for name, member in targets.items():
            path = folder / name
            if member.kind == "folder":
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            for chunk in _copy(member, path):
                limit -= len(chunk)
                if limit < 0:
                    raise ArchiveError(
                        f"{archive} unpacks to more than the declared size, or more than the "
                        f"free space in {folder}. Get the archive from a source that you trust, "
                        "or free some space"
                    )
                progress.advance(len(chunk))
    finally:
        progress.finish()


def _copy(member: Member, path: Path) -> Iterator[bytes]:
    """Copy a file in chunks; each is yielded before it is written, so the caller can stop."""
    with ExitStack() as stack:
        source = member.open()
        if source is None:
            raise EOFError(f"{member.name} has no content")
        stack.enter_context(source)
        file = stack.enter_context(path.open("wb"))
        while chunk := source.read(CHUNK):
            yield chunk
            file.write(chunk)


def _move(source: Path, folder: Path) -> None:
    """Move everything into a folder; existing files are replaced, existing folders are merged."""
    for entry in sorted(source.iterdir()):
        place = folder / entry.name
        if entry.is_dir() and place.is_dir():
            _move(entry, place)
        else:
            entry.replace(place)

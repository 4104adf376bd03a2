"""Download the missing files of a data set: once, verified, and unpacked completely or not."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError
from debiasbench.common.locks import LockHeldError, locked
from debiasbench.common.progress import Progress
from debiasbench.files.archive_members import ArchiveError
from debiasbench.files.archives import unpack
from debiasbench.files.partial_file import MismatchError, PartialFile, verify
from debiasbench.files.transfer import SourceError, check_space, transfer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from debiasbench.core.download import Download


def fetch(
    downloads: Iterable[Download], root: Path, *, progress: Progress | None = None
) -> tuple[Path, ...]:
    """Download what is missing under `root`, and return the files that this call added.

    An interrupted call is resumed by the next one. If two processes need the same file, one
    downloads it and the other waits. An archive that the user put there is used, and kept.
    Raises `DataError` if no source has a file, a file is not the declared one, an archive would
    write outside its folder, or the disk is full.
    """
    progress = progress or Progress()
    absent = [download for download in downloads if not download.is_there(root)]
    added: list[Path] = []
    for position, download in enumerate(absent):
        try:
            with _lock(download, root, progress):
                if download.is_there(root):
                    continue
                _obtain(download, root, progress)
        except SourceError as error:
            others = ", ".join(other.path for other in absent[position + 1 :])
            raise DataError(
                f"Could not download {download.path}: {error}. Download it manually, save it as "
                f"{root / download.path} and run this command again"
                + (f". Also missing: {others}" if others else "")
            ) from error
        except OSError as error:
            raise DataError(
                f"Cannot write {error.filename or root}: {error.strerror or error}. Choose another "
                "folder with --data-root, or check its free space and permissions"
            ) from error
        added += [root / name for name in download.gives]
    return tuple(added)


@contextmanager
def _lock(download: Download, root: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock of one file; it is free again if the process dies."""
    # not beside the data: reading a data set must not change its folder
    name = download.path.replace("/", "-")
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(root, name, wait="never"))
        except LockHeldError:
            progress.start(f"waiting for {download.path} from another process", None)
            try:
                stack.enter_context(locked(root, name, purpose=download.path))
            finally:
                progress.finish()
        yield


def _obtain(download: Download, root: Path, progress: Progress) -> None:
    """Download a file unless the user put it there, then unpack it."""
    file = root / download.path
    by_hand = file.exists()
    if by_hand:
        try:
            verify(download, file)
        except MismatchError as error:
            raise DataError(
                f"{file} is not the expected file: it {error}. Remove it and run this command again"
            ) from error
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        _download(download, file, progress)
    if download.unpack is None:
        return
    try:
        unpack(download, file, root, progress)
    except ArchiveError:
        if not by_hand:
            file.unlink()
        raise
    if not by_hand:
        file.unlink()


def _download(download: Download, file: Path, progress: Progress) -> None:
    """Try the sources in order until one has provided the file."""
    part = PartialFile(file.with_name(f"{file.name}.part"))
    check_space(download, part, download.size)
    reasons = []
    for url in download.urls:
        try:
            transfer(download, url, part, progress)
        except SourceError as error:
            reasons.append(f"{url} {error}")
        else:
            part.rename_to(file)
            return
    raise SourceError("; ".join(reasons) or "it has no download source")

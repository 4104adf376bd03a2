"""Files of data sets from the net: resumed, checked, unpacked whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import lzma
import os
import posixpath
import re
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from filelock import FileLock, Timeout

from debiasbench.common.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

TIMEOUT = 30.0  # seconds without a byte, after which a connection counts as lost
PAUSES = (1.0, 4.0)  # seconds before the second and the third attempt at a source
CHUNK = 1 << 16  # bytes read at a time; an attempt that brought as many is not counted
PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers that may be others in a moment
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
LONGEST_LINK = 4096  # bytes of a path on Linux
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html)[\s>]", re.IGNORECASE)


@dataclass(frozen=True)
class Download:
    """A file, where it is to be had, and what must lie under the data root afterwards.

    Paths are relative to the data root, with forward slashes and without `..`.
    `path`: where the file itself goes. An archive that was fetched is removed once unpacked.
    `urls`: sources of equal bytes, tried in order; https://, or file:// of this machine.
    `gives`: files that make fetching needless; must be named for a tar or a zip, and otherwise
    are the file itself, without its `.gz` where that is unpacked.
    `sha256`: digest of the file as it is fetched, in hex. `size`: its bytes, exactly.
    `unpack`: "gz" is one compressed file, "tar" (compressed or not) and "zip" are archives.
    `into`: the folder that is unpacked into; that of `path` if None.
    `unpacked`: bytes that its content takes at most; None if nobody knows.

    Raises `DataError` for a path that leaves the data root, or a source that anyone could forge.
    """

    path: str
    urls: tuple[str, ...]
    gives: tuple[str, ...] = ()
    sha256: str | None = None
    size: int | None = None
    unpack: Literal["gz", "tar", "zip"] | None = None
    into: str | None = None
    unpacked: int | None = None

    def __post_init__(self) -> None:
        if self.into is None:
            object.__setattr__(self, "into", posixpath.dirname(self.path))
        if not self.gives and self.unpack is None:
            object.__setattr__(self, "gives", (self.path,))
        if not self.gives and self.unpack == "gz":
            object.__setattr__(self, "gives", (posixpath.join(self.into or "", self.stem),))
        if not self.gives:
            raise DataError(f"Download {self.path!r} must say which files unpacking it gives")
        for name in (self.path, *self.gives, *([self.into] if self.into else [])):
            if not name or _tidy(name) != name:
                raise DataError(f"Download path {name!r} must be relative, without . and ..")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise DataError(f"Download {self.path!r}: {self.sha256!r} is no SHA-256 in lower case")
        for url in self.urls:
            if not _is_trusted(url):
                raise DataError(f"Download source {url!r} must start with https:// or file://")

    @property
    def stem(self) -> str:
        """Name of the file, without its `.gz`."""
        return posixpath.basename(self.path).removesuffix(".gz")

    def is_there(self, root: Path) -> bool:
        """Say whether nothing need be fetched."""
        return not self.missing(root)

    def missing(self, *folders: Path) -> list[str]:
        """Return which of the files it gives lie under none of the folders."""
        return [name for name in self.gives if not any((f / name).exists() for f in folders)]


class Progress(Protocol):
    """What a download tells whoever watches it."""

    def start(self, what: str, total: int | None) -> None:
        """A transfer of `total` bytes begins, None if nobody knows; maybe not the first of it."""

    def advance(self, count: int) -> None:
        """So many bytes are there; those of an earlier attempt are counted at once."""

    def finish(self) -> None:
        """It is over, well or not."""


class Silent:
    """Nobody watches."""

    def start(self, what: str, total: int | None) -> None:
        """Do nothing."""

    def advance(self, count: int) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


class _Refused(Exception):  # noqa: N818 - what a source did, not an error that anyone sees
    """A source does not have the file: the next one may."""


class _Mismatch(_Refused):
    """A file came that is not the one known."""


class _Dropped(Exception):  # noqa: N818
    """The same source may do better in a moment."""


class _BadArchive(DataError):  # noqa: N818 - it says what is wrong
    """An archive that is damaged, or tries to write where it must not."""


def fetch(
    downloads: Iterable[Download], root: Path, *, progress: Progress | None = None
) -> tuple[Path, ...]:
    """Fetch what is missing under `root` and return the files that this call brought.

    A killed call is taken up where it ended. Two processes fetch a file once: the later waits.
    An archive that was put in its place by hand is used, and kept.
    Raises `DataError` if no source has a file, it is not the one known, its archive tries to
    write elsewhere, or disk space does not suffice.
    """
    progress = progress or Silent()
    absent = [download for download in downloads if not download.is_there(root)]
    brought: list[Path] = []
    for position, download in enumerate(absent):
        try:
            with _claim(download, root, progress):
                if download.is_there(root):
                    continue
                _bring(download, root, progress)
        except _Refused as error:
            others = ", ".join(other.path for other in absent[position + 1 :])
            raise DataError(
                f"Could not fetch {download.path}: {error}. Get it by other means, put it at "
                f"{root / download.path} and run this again"
                + (f". Missing as well: {others}" if others else "")
            ) from error
        except OSError as error:
            raise DataError(
                f"Cannot write {error.filename or root}: {error.strerror or error}. Choose a "
                "folder with --data-root, or free space and permissions there"
            ) from error
        brought += [root / name for name in download.gives]
    return tuple(brought)


@contextmanager
def _claim(download: Download, root: Path, progress: Progress) -> Iterator[None]:
    """Hold the right to fetch a file; the system gives it back when the process dies."""
    # not beside the data: a folder of data must not change because someone looked at it
    locks = root / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{download.path.replace('/', '-')}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.start(f"{download.path}, which another process fetches", None)
        try:
            lock.acquire()
        finally:
            progress.finish()
    try:
        yield
    finally:
        lock.release()


def _bring(download: Download, root: Path, progress: Progress) -> None:
    file = root / download.path
    by_hand = file.exists()
    if by_hand:
        try:
            _verify(download, file)
        except _Mismatch as error:
            raise DataError(f"{file} is not the file known: {error}. Remove it") from error
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        _download(download, file, progress)
    if download.unpack is None:
        return
    try:
        _unpack(download, file, root, progress)
    except _BadArchive:
        if not by_hand:
            file.unlink()
        raise
    if not by_hand:
        file.unlink()


# ---- from a source to a whole file


def _download(download: Download, file: Path, progress: Progress) -> None:
    """Try each source in turn until one has brought the file."""
    part = _Part(file.with_name(f"{file.name}.part"))
    _check_space(download, part, download.size)
    reasons = []
    for url in download.urls:
        try:
            _persist(download, url, part, progress)
        except _Refused as error:
            reasons.append(f"{url} {error}")
        else:
            part.become(file)
            return
    raise _Refused("; ".join(reasons) or "no program may fetch it")


def _persist(download: Download, url: str, part: _Part, progress: Progress) -> None:
    """Try one source until `part` is whole and right; raises `_Refused` when it is hopeless."""
    pauses = iter(PAUSES)
    furthest = part.size
    while True:
        resumed = False
        try:
            resumed = _transfer(download, url, part, progress)
            _verify(download, part.path)
        except _Mismatch:
            part.remove()
            # the beginning may have been another file's: that is not this source's fault
            if not resumed:
                raise
        except _Dropped as error:
            if part.size >= furthest + CHUNK:
                furthest, pauses = part.size, iter(PAUSES)
            pause = next(pauses, None)
            if pause is None:
                raise _Refused(str(error)) from error
            time.sleep(pause)
        else:
            return


@dataclass(frozen=True)
class _Part:
    """What came of a file so far, with a note of the source and the version that it is of."""

    path: Path

    @property
    def note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.from")

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self, url: str) -> str | None:
        """Return the ETag or date of what came from this source."""
        try:
            source, version = self.note.read_text("utf-8").splitlines()
        except (OSError, ValueError):
            return None
        return version if source == url else None

    def held(self, download: Download, url: str) -> int:
        """Return how many bytes can be kept: without a digest, only those of the same version."""
        sure = download.sha256 is not None or self.version(url) is not None
        return self.size if sure else 0

    def begin(self, url: str, headers: http.client.HTTPMessage) -> None:
        """Note what the bytes to come are of, before the first of them is there."""
        self.remove()
        etag = headers.get("ETag", "")
        # a weak ETag does not promise equal bytes
        version = headers.get("Last-Modified") if etag.startswith("W/") or not etag else etag
        if version:
            self.note.write_text(f"{url}\n{version}\n", "utf-8")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def become(self, file: Path) -> None:
        """Take the file's name, on the disk and not only in memory."""
        with self.path.open("rb") as content:
            os.fsync(content.fileno())
        self.path.replace(file)
        self.note.unlink(missing_ok=True)


def _transfer(download: Download, url: str, part: _Part, progress: Progress) -> bool:
    """Complete `part` and return whether its beginning was kept.

    Raises `_Dropped` or `_Refused` if the source does not give all of it.
    """
    held = part.held(download, url)
    with ExitStack() as stack:
        try:
            response = stack.enter_context(_open(url, held, part.version(url)))
        except HTTPError as error:
            stack.enter_context(error)
            if error.code == 416 and held:
                if error.headers.get("Content-Range", "") == f"bytes */{held}":
                    return True  # nothing is lacking
                part.remove()
                raise _Dropped("has less than what came before") from error
            reason = f"answered {error.code} {error.reason}"
            raise (_Dropped if error.code in PASSING else _Refused)(reason) from error
        except (OSError, http.client.HTTPException) as error:
            raise _Dropped(f"could not be reached ({_brief(error)})") from error
        start, total = _announced(response)
        if start not in (0, held):
            part.remove()
            raise _Dropped(f"sent another part than what follows byte {held:,}")
        _refuse_page(download, response.headers.get_content_type() == "text/html")
        chunks = _chunks(response)
        first = next(chunks, b"")
        _refuse_page(download, start == 0 and PAGE.match(first) is not None)
        if download.size is not None:
            if total not in (None, download.size):
                raise _Refused(f"has {total:,} bytes instead of {download.size:,}")
            total = download.size
        if start == 0:
            # only now: a page in between must not cost what came before
            part.begin(url, response.headers)
        _check_space(download, part, total)
        progress.start(download.path, total)
        stack.callback(progress.finish)
        _append(part, first, chunks, total, progress)
    return start > 0


def _announced(response: Any) -> tuple[int, int | None]:
    """Return where the answer begins, -1 if it does not say, and the bytes of the whole file."""
    status = response.status or 200  # file:// has none
    if status == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    if status != 206:
        raise _Refused(f"answered {status} {response.reason}")
    given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if given is None:
        return -1, None
    return int(given[1]), None if given[2] == "*" else int(given[2])


def _append(
    part: _Part, first: bytes, rest: Iterator[bytes], total: int | None, progress: Progress
) -> None:
    with part.path.open("ab") as file:
        progress.advance(file.tell() + file.write(first))
        for chunk in rest:
            progress.advance(file.write(chunk))
        size = file.tell()
    if total is not None and size < total:
        raise _Dropped(f"ended after {size:,} of {total:,} bytes")
    if size == 0 or (total is not None and size > total):
        part.remove()
        raise _Refused(f"sent {size:,} bytes" + (f" instead of {total:,}" if total else ""))


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """Read from a source; its failures are none of the disk's."""
    while True:
        try:
            chunk = stream.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _Dropped(f"broke off ({_brief(error)})") from error
        if not chunk:
            return
        yield chunk


def _open(url: str, held: int, version: str | None) -> Any:
    headers = {"User-Agent": "debiasbench", "Accept-Encoding": "identity"}
    if held:
        headers["Range"] = f"bytes={held}-"
        if version:
            headers["If-Range"] = version
    # a proxy can know nothing of this machine's own address
    local = [ProxyHandler({})] if urlsplit(url).hostname in LOOPBACK else []
    return build_opener(_TrustedRedirects, *local).open(
        Request(url, headers=headers), timeout=TIMEOUT
    )


class _TrustedRedirects(HTTPRedirectHandler):
    """Follows no redirect to where a `Download` may not point."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if not _is_trusted(newurl) or urlsplit(newurl).scheme == "file":
            raise HTTPError(newurl, code, f"redirect to {newurl}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_trusted(url: str) -> bool:
    """Say whether nobody on the way can change what comes from a source."""
    parts = urlsplit(url)
    return parts.scheme in ("https", "file") or (
        parts.scheme == "http" and parts.hostname in LOOPBACK
    )


def _refuse_page(download: Download, is_page: bool) -> None:
    if is_page and not download.path.endswith((".html", ".htm")):
        raise _Refused("sent a web page and no file (it may ask for a login, or a quota is spent)")


def _verify(download: Download, file: Path) -> None:
    """Raise `_Mismatch` naming both digests if a file is not the one known."""
    size = file.stat().st_size
    if download.size not in (None, size):
        raise _Mismatch(f"has {size:,} bytes instead of {download.size:,}")
    if download.sha256 is None:
        return
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != download.sha256:
        raise _Mismatch(f"has SHA-256 {found} instead of {download.sha256}")


def _check_space(download: Download, part: _Part, total: int | None) -> None:
    """Refuse what cannot fit: the rest of a file of `total` bytes, and what it holds."""
    if total is None:
        return
    needed = total - min(part.size, total)
    if download.unpack is not None:
        # hardly an archive holds less than itself; its own word is taken before it is unpacked
        needed += total if download.unpacked is None else download.unpacked
    _demand(needed, part.path.parent, download.path)


def _demand(needed: int, folder: Path, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{what} needs {_readable(needed)} in {folder}, where {_readable(free)} are free: "
            "make room, or choose another folder with --data-root"
        )


def _readable(size: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size:,} bytes"


def _brief(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__


# ---- from an archive to files


@dataclass(frozen=True)
class _Member:
    """One thing in an archive. `size`: bytes, None if only reading tells; `link`: as written."""

    name: str
    kind: Literal["file", "folder", "link", "other"]
    size: int | None
    open: Callable[[], IO[bytes] | gzip.GzipFile | None]
    link: str = ""


def _unpack(download: Download, archive: Path, root: Path, progress: Progress) -> None:
    """Unpack beside the place, then rename: a kill leaves no torn file under a right name."""
    folder = root / (download.into or "")
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{archive.name}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    try:
        # as deep as `root` is above `folder`, so that what is given has its own path in both
        inner = temporary / (download.into or "")
        inner.mkdir(parents=True)
        with _reading(archive), _members(download, archive) as members:
            _write(download, archive, _targets(archive, members), inner, progress)
        if lacking := download.missing(temporary, root):
            raise _BadArchive(f"{archive} holds no {lacking[0]}: get it from another source")
        _merge(inner, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turn whatever the readers of archives raise into one error."""
    damage = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError,
              RuntimeError, ValueError)  # fmt: skip
    try:
        yield
    except (*damage, OSError) as error:
        # those of the disk have a number, those of gzip and bz2 have none
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _BadArchive(
            f"{archive} is damaged ({error}). Remove it if it is still there, and fetch it again"
        ) from error


@contextmanager
def _members(download: Download, archive: Path) -> Iterator[Sequence[_Member]]:
    if download.unpack == "gz":
        yield [_Member(download.stem, "file", None, partial(gzip.open, archive))]
    elif download.unpack == "tar":
        with tarfile.open(archive) as tar:
            yield [_of_tar(tar, info) for info in tar]
    else:
        with zipfile.ZipFile(archive) as zipped:
            yield [_of_zip(zipped, info) for info in zipped.infolist()]


def _of_tar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    content = partial(tar.extractfile, info)
    if info.isreg():
        return _Member(info.name, "file", info.size, content)
    if info.issym():
        return _Member(info.name, "link", 0, content, _beside(info.name, info.linkname))
    if info.islnk():
        return _Member(info.name, "link", 0, content, info.linkname)
    return _Member(info.name, "folder" if info.isdir() else "other", 0, content)


def _of_zip(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    content = partial(zipped.open, info)
    # the upper half holds a Unix mode; 0 where the archive was made elsewhere
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.is_dir():
        return _Member(info.filename, "folder", 0, content)
    if kind in (0, stat.S_IFREG):
        return _Member(info.filename, "file", info.file_size, content)
    if kind == stat.S_IFLNK and info.file_size <= LONGEST_LINK:
        to = zipped.read(info).decode()
        return _Member(info.filename, "link", 0, content, _beside(info.filename, to))
    return _Member(info.filename, "other", 0, content)


def _beside(name: str, link: str) -> str:
    """Return what a symbolic link at `name` names, from the top of its archive."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), link))


def _targets(archive: Path, members: Sequence[_Member]) -> dict[str, _Member]:
    """Return what to write by its path, links replaced by what they name.

    No link is ever made, so that nothing can be written through one. Raises `DataError` for a
    name that leaves the folder, a link to what is no file of the archive, and a device.
    """
    files = {_tidy(m.name): m for m in members if m.kind == "file"}
    targets = {}
    for member in members:
        name = _tidy(member.name)
        source = files.get(_tidy(member.link)) if member.kind == "link" else member
        if name is None:
            why = "which lies outside its folder"
        elif member.kind == "other":
            why = "which is no file, folder or link"
        elif source is None:
            why = f"a link to {member.link!r}, which is no file of it"
        else:
            targets[name] = source
            continue
        raise _BadArchive(
            f"{archive} holds {member.name!r}, {why}; nothing was unpacked. "
            "Get it from a source that you trust"
        )
    return targets


def _write(
    download: Download,
    archive: Path,
    targets: dict[str, _Member],
    folder: Path,
    progress: Progress,
) -> None:
    """Write the members into an empty folder, within declared and free space."""
    sizes = [member.size for member in targets.values()]
    known = None if None in sizes else sum(size or 0 for size in sizes)
    limit = shutil.disk_usage(folder).free
    if download.unpacked is not None:
        limit = min(limit, download.unpacked)
    if known is not None:
        _demand(known, folder, f"What {download.path} holds")
    progress.start(f"unpacking {download.path}", known or download.unpacked)
    try:
        for name, member in targets.items():
            path = folder / name
            if member.kind == "folder":
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            for chunk in _copying(member, path):
                limit -= len(chunk)
                if limit < 0:
                    raise _BadArchive(
                        f"{archive} unpacks to more than it should, or than is free in {folder}: "
                        "get it from a source that you trust"
                    )
                progress.advance(len(chunk))
    finally:
        progress.finish()


def _copying(member: _Member, path: Path) -> Iterator[bytes]:
    """Copy a file; each chunk is yielded before it is written."""
    with ExitStack() as stack:
        source = member.open()
        if source is None:
            raise EOFError(f"{member.name} has no content")
        stack.enter_context(source)
        file = stack.enter_context(path.open("wb"))
        while chunk := source.read(CHUNK):
            yield chunk
            file.write(chunk)


def _merge(source: Path, folder: Path) -> None:
    """Move all to its place: a file that is there gives way, a folder takes in."""
    for entry in sorted(source.iterdir()):
        place = folder / entry.name
        if entry.is_dir() and place.is_dir():
            _merge(entry, place)
        else:
            entry.replace(place)


def _tidy(name: str) -> str | None:
    """Return a relative name without `.` and doubled slashes, None for one that leads elsewhere."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    # a backslash and a drive letter lead elsewhere on Windows only, but no data set needs them
    if name.startswith("/") or "\\" in name or ".." in parts or re.match("[A-Za-z]:", name):
        return None
    return "/".join(parts)

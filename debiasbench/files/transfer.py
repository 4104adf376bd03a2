"""Download a file from one source over HTTP, with resuming, retries and checks."""

from __future__ import annotations

import http.client
import re
import time
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from debiasbench.core.download import LOOPBACK, is_trusted
from debiasbench.files.disk_space import require_space
from debiasbench.files.partial_file import MismatchError, verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debiasbench.common.progress import Progress
    from debiasbench.core.download import Download
    from debiasbench.files.partial_file import PartialFile

TIMEOUT = 30.0  # seconds without a byte before a connection counts as lost
PAUSES = (1.0, 4.0)  # seconds before the second and the third attempt at a source
CHUNK = 1 << 16  # bytes per read; an attempt that adds as many does not count as failed
TEMPORARY = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that may change soon
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html)[\s>]", re.IGNORECASE)


class SourceError(Exception):
    """A source does not have the file; another source may have it."""


class _TemporaryError(Exception):
    """An attempt failed, but the same source may succeed soon."""


def transfer(download: Download, url: str, part: PartialFile, progress: Progress) -> None:
    """Download from one source until `part` is complete and verified.

    Raises `SourceError` if the source cannot provide the file, and `DataError` if the disk is full.
    """
    pauses = iter(PAUSES)
    furthest = part.size
    while True:
        resumed = False
        try:
            resumed = _attempt(download, url, part, progress)
            verify(download, part.path)
        except MismatchError as error:
            part.remove()
            # after resuming, the first bytes may be from another file: try once more from zero
            if not resumed:
                raise SourceError(str(error)) from error
        except _TemporaryError as error:
            if part.size >= furthest + CHUNK:
                furthest, pauses = part.size, iter(PAUSES)
            pause = next(pauses, None)
            if pause is None:
                raise SourceError(str(error)) from error
            time.sleep(pause)
        else:
            return


def check_space(download: Download, part: PartialFile, total: int | None) -> None:
    """Raise `DataError` if the rest of a file of `total` bytes and its contents do not fit."""
    if total is None:
        return
    needed = total - min(part.size, total)
    if download.unpack is not None:
        # an archive rarely unpacks to less than its own size; checked exactly when unpacking
        needed += total if download.unpacked is None else download.unpacked
    require_space(needed, part.path.parent, download.path)


def _attempt(download: Download, url: str, part: PartialFile, progress: Progress) -> bool:
    """Complete `part` and return whether it was resumed.

    Raises `_TemporaryError` or `SourceError` if the source does not send all of it.
    """
    kept = part.reusable(download, url)
    with ExitStack() as stack:
        try:
            response = stack.enter_context(_open(url, kept, part.version(url)))
        except HTTPError as error:
            stack.enter_context(error)
            if error.code == 416 and kept:
                if error.headers.get("Content-Range", "") == f"bytes */{kept}":
                    return True  # all bytes are present
                part.remove()
                raise _TemporaryError("has fewer bytes than were already downloaded") from error
            reason = f"answered {error.code} {error.reason}"
            raise (_TemporaryError if error.code in TEMPORARY else SourceError)(reason) from error
        except (OSError, http.client.HTTPException) as error:
            raise _TemporaryError(f"could not be reached ({_brief(error)})") from error
        start, total = _announced(response)
        if start not in (0, kept):
            part.remove()
            raise _TemporaryError("sent another part of the file than requested")
        _refuse_page(download, response.headers.get_content_type() == "text/html")
        chunks = _chunks(response)
        first = next(chunks, b"")
        _refuse_page(download, start == 0 and PAGE.match(first) is not None)
        if download.size is not None:
            if total not in (None, download.size):
                raise SourceError(f"has {total:,} bytes instead of {download.size:,}")
            total = download.size
        if start == 0:
            # not earlier: an error page must not delete the bytes of an earlier attempt
            part.begin(url, response.headers)
        check_space(download, part, total)
        progress.start(download.path, total)
        stack.callback(progress.finish)
        _append(part, first, chunks, total, progress)
    return start > 0


def _announced(response: Any) -> tuple[int, int | None]:
    """Return the first byte's position, -1 if unknown, and the size of the whole file."""
    status = response.status or 200  # file:// has none
    if status == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    if status != 206:
        raise SourceError(f"answered {status} {response.reason}")
    given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if given is None:
        return -1, None
    return int(given[1]), None if given[2] == "*" else int(given[2])


def _append(
    part: PartialFile,
    first: bytes,
    rest: Iterator[bytes],
    total: int | None,
    progress: Progress,
) -> None:
    with part.path.open("ab") as file:
        progress.advance(file.tell() + file.write(first))
        for chunk in rest:
            progress.advance(file.write(chunk))
        size = file.tell()
    if total is not None and size < total:
        raise _TemporaryError(f"ended after {size:,} of {total:,} bytes")
    if size == 0 or (total is not None and size > total):
        part.remove()
        raise SourceError(f"sent {size:,} bytes" + (f" instead of {total:,}" if total else ""))


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    """Read from a source; its failures must not be taken for failures of the disk."""
    while True:
        try:
            chunk = stream.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _TemporaryError(f"lost the connection ({_brief(error)})") from error
        if not chunk:
            return
        yield chunk


def _open(url: str, kept: int, version: str | None) -> Any:
    headers = {"User-Agent": "debiasbench", "Accept-Encoding": "identity"}
    if kept:
        headers["Range"] = f"bytes={kept}-"
        if version:
            headers["If-Range"] = version
    # a proxy cannot reach the loopback address of this machine
    local = [ProxyHandler({})] if urlsplit(url).hostname in LOOPBACK else []
    return build_opener(_TrustedRedirects, *local).open(
        Request(url, headers=headers), timeout=TIMEOUT
    )


class _TrustedRedirects(HTTPRedirectHandler):
    """Follows redirects only to addresses that a `Download` may name."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if not is_trusted(newurl) or urlsplit(newurl).scheme == "file":
            raise HTTPError(newurl, code, f"redirect to {newurl}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refuse_page(download: Download, is_page: bool) -> None:
    if is_page and not download.path.endswith((".html", ".htm")):
        raise SourceError(
            "sent a web page instead of the file (it may require a login, or a quota is used up)"
        )


def _brief(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__

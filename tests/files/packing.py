"""Small archives for the tests, safe and unsafe."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import Any

from debiasbench.core.download import Download


def tar_of(*members: tuple[str, bytes | tuple[bytes, str]]) -> bytes:
    """Make a tar.gz; a member is its content, or its type and link target."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, entry in members:
            info = tarfile.TarInfo(name)
            content = b""
            if isinstance(entry, bytes):
                content, info.size = entry, len(entry)
            else:
                info.type, info.linkname = entry
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(*members: tuple[str, bytes], mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            zipped.writestr(info, content)
    return buffer.getvalue()


GIVES = ("data/images/a", "data/images/b")
GOOD = (("images/a", b"one"), ("images/b", b"two"))
ARCHIVES: dict[str, tuple[Any, bytes]] = {
    "tar": ("tar", tar_of(("images", (tarfile.DIRTYPE, "")), *GOOD)),
    "zip": ("zip", zip_of(("images/", b""), *GOOD)),
}


def archive(url: str, unpack: str = "tar", **more: Any) -> Download:
    """Declare `data/pack`, an archive of two images."""
    fields = {"path": "data/pack", "urls": (url,), "gives": GIVES, "unpack": unpack, **more}
    return Download(**fields)

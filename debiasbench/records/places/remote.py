"""A place that fsspec can reach, such as an object store, as a place of records."""

from __future__ import annotations

import re
import secrets
import tempfile
from base64 import b64decode
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from debiasbench.common.errors import DebiasbenchError, OptionError, RecordError, StoreError
from debiasbench.common.foreign import first_line
from debiasbench.common.wording import shortened
from debiasbench.records.places.shelf import Changed, Item, Listing

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from debiasbench.specs.spec import Spec

WHOLE = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci", "memory")
"""Protocols under which a file appears when it is complete."""

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}
"""Protocol -> the package of the extra `remote` that speaks it."""


class Writer(Protocol):
    """How files come to a place."""

    def begin(self) -> None:
        """Prepare for `write`; called before the files are listed."""

    def write(self, path: str, content: bytes | Path, *, new: bool) -> None:
        """Write a file; it appears when it is complete. Raises `FileExistsError` if `new`."""

    def finish(self) -> None:
        """Complete what `write` has begun."""


class RemoteShelf:
    """A place with a URL that fsspec knows; see `Shelf`.

    Raises `OptionError` for a URL that cannot be used, and if a package is missing.
    """

    def __init__(self, url: str) -> None:
        self.title = re.sub(r"//[^/@]*@", "//...@", url).rstrip("/")  # without a password
        self._fs, root = opened(url, self.title)
        self._root = root.rstrip("/")
        self._sizes: dict[str, int] = {}
        self._writer = _writer(url, self._fs, self._root)

    def listing(self) -> Listing:
        """List all files, without hidden ones and what is in hidden folders."""
        found = Listing()
        try:
            self._writer.begin()
            for folder, folders, files in self._fs.walk(
                self._root, detail=True, topdown=True, on_error="raise"
            ):
                for name in [n for n, i in folders.items() if n[:1] == "." or i.get("islink")]:
                    del folders[name]
                prefix = folder.rstrip("/")[len(self._root) :].strip("/")
                for name, info in files.items():
                    if name and not name.startswith("."):
                        full = f"{prefix}/{name}" if prefix else name
                        found.add(Item(full, int(info.get("size") or 0), _md5(info)))
        except FileNotFoundError:
            return Listing()  # an object store has no empty folders
        except Exception as error:
            raise self._failed("read", error) from error
        self._sizes = {name: item.size for name, item in found.items.items()}
        return found

    def exists(self) -> bool:
        """Return whether there is anything at the place."""
        try:
            return bool(self._fs.exists(self._root))
        except Exception as error:
            raise self._failed("read", error) from error

    def read(self, name: str, most: int | None = None) -> bytes:
        """Return the content of a file of at most `most` bytes; raises `RecordError`."""
        path = self._path(name)
        try:
            size = self._sizes.get(name)
            if size is None:
                size = int(self._fs.info(path)["size"])
            if most is not None and size > most:
                raise RecordError(
                    f"{self.title}/{name} cannot be read: It has {size:,} bytes, and {most:,} are "
                    "the most"
                )
            # with both ends, no file system asks for the size again
            content: bytes = self._fs.cat_file(path, start=0, end=size) if size else b""
        except DebiasbenchError:
            raise
        except FileNotFoundError as error:
            raise RecordError(f"{self.title}/{name} is not there any more") from error
        except Exception as error:
            raise self._failed("read", error) from error
        return content

    def local(self, name: str, spool: Path) -> Path:
        """Download a file to `spool`, and return that; raises `RecordError`."""
        try:
            spool.parent.mkdir(parents=True, exist_ok=True)
            self._fs.get_file(self._path(name), str(spool))
        except FileNotFoundError as error:
            raise RecordError(f"{self.title}/{name} is not there any more") from error
        except Exception as error:
            raise self._failed("read", error) from error
        return spool

    def spool(self, name: str) -> Path:
        """Return a path in the folder of temporary files."""
        return Path(tempfile.gettempdir(), f"debiasbench-{secrets.token_hex(8)}")

    def write(self, name: str, content: bytes | Path, *, new: bool) -> None:
        """Write a file completely or not at all."""
        try:
            self._writer.write(self._path(name), content, new=new)
        except FileExistsError as error:
            self._sizes.pop(name, None)
            raise Changed from error
        except Exception as error:
            raise self._failed("write to", error) from error

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        with suppress(Exception):
            self._fs.rm_file(self._path(name))

    def holding(self, spec: Spec) -> AbstractContextManager[None]:
        """Do nothing: object stores have no locks, so `write` refuses what is there already."""
        return nullcontext()

    def finish(self) -> None:
        """Complete what `write` has begun."""
        try:
            self._writer.finish()
        except Exception as error:
            raise self._failed("write to", error) from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _failed(self, what: str, error: Exception) -> StoreError:
        return StoreError(f"Cannot {what} {self.title}: {reason(error)}")


def opened(url: str, title: str) -> tuple[Any, str]:
    """Return the file system of a URL, without caches, and the path in it; raises `OptionError`."""
    import fsspec

    protocol = url.partition("://")[0].rpartition("::")[2]
    try:
        fs, root = fsspec.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        package = PACKAGES.get(protocol)
        advice = (
            f'install {package}, for example with pip install "debiasbench[remote]"'
            if package
            else first_line(error).partition(": ")[2]
        )
        raise OptionError(f"{title}: the protocol {protocol} needs a package: {advice}") from error
    except ValueError as error:
        if "Protocol not known" in str(error):
            raise OptionError(
                f"{title}: the protocol {protocol!r} is not known. Give a folder, or a URL such as "
                "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or hf://datasets/USER/NAME"
            ) from error
        raise OptionError(f"{title} cannot be used: {reason(error)}") from error
    except Exception as error:
        raise StoreError(f"Cannot use {title}: {reason(error)}") from error
    if not root.strip("/") and protocol != "memory":
        raise OptionError(f"{title} names no folder: give one, such as {protocol}://BUCKET/FOLDER")
    return fs, str(root)


def reason(error: Exception) -> str:
    """Say in one line why a place failed, and what to check."""
    text = shortened(" ".join(first_line(error).split()))
    name = type(error).__name__
    if isinstance(error, PermissionError) or "Credential" in name or "401" in text or "403" in text:
        return f"{text}. Check the credentials in the environment, and what they permit"
    if isinstance(error, NotImplementedError):
        return f"{text}. The protocol may be read-only"
    if "Connect" in name or "Timeout" in name or isinstance(error, ConnectionError | TimeoutError):
        return f"{text}. Check the network, and the address of the server"
    return text


def _md5(info: dict[str, Any]) -> str:
    """Return the MD5 that a listing of S3 or Google Storage has of a file, "" if it has none."""
    tag = str(info.get("ETag") or "").strip('"')  # other tags never equal an MD5
    if re.fullmatch("[0-9a-f]{32}", tag):
        return tag
    with suppress(ValueError, TypeError):
        return b64decode(info["md5Hash"]).hex() if "md5Hash" in info else ""
    return ""


def _writer(url: str, fs: Any, root: str) -> Writer:
    protocol = url.partition("://")[0].rpartition("::")[2]
    if protocol == "hf" and not url.partition("://")[2].startswith("buckets/"):
        from debiasbench.records.places.hub import Commits

        return Commits(fs, root)
    return Whole(fs) if protocol in WHOLE else Renamed(fs)


class Whole:
    """Writes to a file system on which a file appears when it is complete."""

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def begin(self) -> None:
        """Do nothing."""

    def write(self, path: str, content: bytes | Path, *, new: bool) -> None:
        """Write a file; a small one that must be new is refused by the server if it exists."""
        if isinstance(content, Path):
            self._fs.put_file(str(content), path)
        else:
            self._fs.pipe_file(path, content, mode="create" if new else "overwrite")

    def finish(self) -> None:
        """Do nothing: files are written at once."""


class Renamed:
    """Writes to a file system that shows incomplete files: under a hidden name, then renamed."""

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def begin(self) -> None:
        """Do nothing."""

    def write(self, path: str, content: bytes | Path, *, new: bool) -> None:
        """Write a file beside its place, and move it there."""
        folder, _, name = path.rpartition("/")
        if new and self._fs.exists(path):
            raise FileExistsError(path)
        temporary = f"{folder}/.{name}.{secrets.token_hex(8)}.new"
        self._fs.makedirs(folder, exist_ok=True)
        try:
            if isinstance(content, Path):
                self._fs.put_file(str(content), temporary)
            else:
                self._fs.pipe_file(temporary, content)
            self._fs.mv(temporary, path)
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(temporary)
            raise

    def finish(self) -> None:
        """Do nothing: files are written at once."""

"""What a person names a place by: a folder or a URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError
from debiasbench.records.places.folder import FolderShelf
from debiasbench.records.places.remote import RemoteShelf

if TYPE_CHECKING:
    from debiasbench.records.places.shelf import Shelf


def shelf(place: str) -> Shelf:
    """Return the place with a name: a folder, or a URL of a protocol that fsspec knows.

    Raises `OptionError` for a name that cannot be used, and `StoreError`.
    """
    for local in ("file://", "local://"):
        if place.startswith(local):
            place = place.removeprefix(local)
    if "://" in place or "::" in place:
        return RemoteShelf(place)
    folder = Path(place)
    if "\0" in place or (folder.exists() and not folder.is_dir()):
        raise OptionError(f"{folder} is not a folder: give a folder, or a URL such as s3://BUCKET")
    return FolderShelf(folder)

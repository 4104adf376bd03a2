"""The files of searches for options, which are copied as they are, under checked names."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from debiasbench.common.errors import RecordError
from debiasbench.records.places.shelf import SEARCH
from debiasbench.records.upgrade import spec_id

if TYPE_CHECKING:
    from debiasbench.records.places.shelf import Item, Listing

_PART = "[A-Za-z0-9][A-Za-z0-9_.-]{0,199}"
_NAME = re.compile(rf"{SEARCH}/(?:{_PART}/)?{_PART}\.json")


def is_file(name: str) -> bool:
    """Say whether a file, by its name, is one of a search; its name can be that of a local file."""
    return _NAME.fullmatch(name) is not None


def files(listing: Listing) -> list[Item]:
    """Return the JSON files of searches: trials, and what was found."""
    return [item for name, item in sorted(listing.items.items()) if is_file(name)]


def beside(title: str, name: str, content: bytes) -> tuple[str, str] | None:
    """Return the name and the SHA-256 of the predictions of a trial, None if it has none.

    Raises `RecordError` for a file that is not one of a search, and for an id that is not the hash
    of the spec beside it.
    """
    try:
        data = json.loads(content)
        if "spec" in data and spec_id(data["spec"]) != data["id"]:
            raise RecordError(f"{title}/{name} was changed by hand: its id is not that of its spec")
        entry = data.get("predictions")
        if entry is None:
            return None
        own, digest = str(entry["file"]), str(entry["sha256"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise RecordError(f"{title}/{name} is not a file of a search") from error
    if not re.fullmatch(rf"{_PART}\.safetensors", own):
        raise RecordError(f"{title}/{name} names predictions of no valid name")
    return f"{name.rpartition('/')[0]}/{own}", digest

"""The files of searches for options, which are copied as they are, under checked names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from debiasbench.records.places.shelf import SEARCH

if TYPE_CHECKING:
    from debiasbench.records.places.shelf import Item, Listing

_NAME = re.compile(
    rf"{SEARCH}/(?:[A-Za-z0-9][A-Za-z0-9_.-]{{0,199}}/)?"
    r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}\.(json|safetensors)"
)


def is_file(name: str) -> bool:
    """Say whether a file, by its name, is one of a search; its name can be that of a local file."""
    return _NAME.fullmatch(name) is not None


def phases(listing: Listing) -> list[list[Item]]:
    """Return the files of searches: first those beside JSON files, then the JSON files."""
    found = [item for name, item in sorted(listing.items.items()) if is_file(name)]
    return [
        [item for item in found if item.name.endswith(".json") is last] for last in (False, True)
    ]

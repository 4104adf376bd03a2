"""Names of files for data sets and methods, which strangers may have named."""

from __future__ import annotations

import hashlib
import re

LONGEST = 60  # characters of a name that are kept
_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]*")  # the same on every file system and in every address
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)$")  # no file of Windows has such a name


def file_name(name: str) -> str:
    """Return a name for a file, without ending, that only this name has.

    A short name of lower-case letters, digits, "_" and "-" stays; any other gets a hash.
    """
    if _PLAIN.fullmatch(name) and len(name) <= LONGEST and not _DEVICES.match(name):
        return name
    return hashed(name, name)


def hashed(words: str, *identity: str) -> str:
    """Return what a file name can hold of some words, and eight digits of a hash of `identity`."""
    readable = re.sub(r"[^a-z0-9]+", "-", words.lower())[:LONGEST].strip("-")
    digits = hashlib.sha256("\0".join(identity).encode(errors="replace")).hexdigest()[:8]
    return f"{readable}-{digits}" if readable else digits

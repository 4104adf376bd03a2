"""The canonical JSON of a value, its digest, and strict reading of dataclasses."""

from __future__ import annotations

import hashlib
import json
from typing import ClassVar

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


class Strict:
    """A base class of dataclasses that are read from JSON: unknown fields are an error."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}


def canonical(value: object) -> str:
    """Return the canonical JSON of a value: sorted keys, no spaces, no NaN."""
    return _ENCODER.encode(value)


def digest(value: object) -> str:
    """Return the SHA-256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()

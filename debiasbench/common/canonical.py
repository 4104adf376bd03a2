"""The one JSON text of a value, its digest, and strict reading of dataclasses."""

from __future__ import annotations

import hashlib
import json
from typing import ClassVar


class Strict:
    """What is read back must have no field that it had not when written."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}


def canonical(value: object) -> str:
    """Return the one JSON text of a value: keys sorted, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: object) -> str:
    """Return the SHA-256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()

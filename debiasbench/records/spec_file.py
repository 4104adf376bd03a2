"""Specs as files: a run that somebody, or another process, can run again."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import RecordError
from debiasbench.common.regular import read_regular
from debiasbench.common.wording import shortened
from debiasbench.records.plain import fault, refused
from debiasbench.specs.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydantic import TypeAdapter

MOST_BYTES = 64 << 20


def write_specs(file: Path, specs: Sequence[Spec]) -> None:
    """Write specs as a list of JSON objects; raises `StoreError`."""
    from debiasbench.records.store import write_text  # imports NumPy

    write_text(file, json.dumps([asdict(spec) for spec in specs], indent=1) + "\n")


def read_specs(file: Path) -> list[Spec]:
    """Read a list of specs, or a single one; raises `RecordError`."""
    content = read_json(file)
    return specs_of(content if isinstance(content, list) else [content], str(file))


def read_json(file: Path) -> Any:
    """Read a JSON file whose numbers are finite; raises `RecordError`."""
    try:
        content = json.loads(read_regular(file, MOST_BYTES))
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        reason = shortened(str(error))
        raise RecordError(f"{file} is not a file of specs: no valid JSON ({reason})") from error
    if wrong := fault(content, finite=True):
        raise RecordError(f"{file} is not a file of specs: {wrong}")
    return content


def specs_of(content: list[Any], file: str) -> list[Spec]:
    """Return the specs that a list of JSON objects describes; raises `RecordError`."""
    from pydantic import ValidationError

    try:
        return _reader().validate_python(content)
    except ValidationError as error:
        raise RecordError(f"{file} is not a file of specs: {refused(error)}") from error


@cache
def _reader() -> TypeAdapter[list[Spec]]:
    from pydantic import TypeAdapter

    return TypeAdapter(list[Spec])

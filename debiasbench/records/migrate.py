"""Rewriting record files of older schemas in the current schema, under their current names."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from debiasbench.common.atomic import write_whole
from debiasbench.common.errors import RecordError, StoreError
from debiasbench.common.regular import read_regular
from debiasbench.records.beside import PREDICTIONS, WEIGHTS, location
from debiasbench.records.reading import read
from debiasbench.records.record import to_json
from debiasbench.records.upgrade import SCHEMA

if TYPE_CHECKING:
    from pathlib import Path


def is_current(path: Path) -> bool:
    """Say whether a record file, which can be read, is in the current schema."""
    return bool(json.loads(read_regular(path))["schema"] == SCHEMA)


def migrate(path: Path) -> Path:
    """Rewrite a record file of an older schema in the current one; return its path then.

    The new name follows from the upgraded spec. The files beside the record get that name too.
    Their content stays as it is, and so does the provenance. A record in the current schema is not
    touched. If the process is killed, calling `migrate` again completes the work.

    Raises `RecordError` if `path` is not a record or if another record has the new name, and
    `StoreError` if the folder cannot be written.
    """
    record = read(path)
    if is_current(path):
        return path
    target = path.with_name(f"{record.spec.stem}.json")
    if target != path and target.exists() and read(target).id != record.id:
        migrate(target)  # that record has an old name too: its own new name is another one
    moves: list[tuple[Path, Path]] = []

    def renamed(entry: dict[str, str] | None, ending: str) -> dict[str, str] | None:
        if entry is None:
            return None
        new = {**entry, "file": record.spec.stem + ending}
        moves.append((location(path, entry), location(path, new)))
        return new

    text = to_json(
        replace(
            record,
            predictions=renamed(record.predictions, PREDICTIONS),
            weights=renamed(record.weights, WEIGHTS),
        )
    )
    if target != path and target.exists() and target.read_text("utf-8") != text:
        raise RecordError(f"{path} cannot become {target.name}, which exists: remove one of them")
    try:
        for old, new in moves:
            if old != new and old.exists():
                write_whole(new, read_regular(old))
        write_whole(target, text.encode())
        for old, new in [*moves, (path, target)]:
            if old != new:
                old.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"Cannot rewrite {path}: {error.strerror or error}") from error
    return target

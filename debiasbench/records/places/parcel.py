"""A record as it is copied: the bytes of its file, and the files beside it, all verified."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import RecordError
from debiasbench.common.wording import shortened
from debiasbench.records.beside import PREDICTIONS, WEIGHTS, most_bytes, sha256
from debiasbench.records.difference import differing
from debiasbench.records.reading import MOST_BYTES
from debiasbench.records.record import from_json, to_json
from debiasbench.records.upgrade import SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

    from debiasbench.records.places.shelf import Listing, Shelf
    from debiasbench.records.record import Record


@dataclass(frozen=True)
class Parcel:
    """A record of a place, and the content of its file under its current name.

    `name`: of its file at the place. Records of an older schema are in the current one.
    """

    name: str
    record: Record
    content: bytes
    predictions: str | None  # name of the file at the place
    weights: str | None

    @property
    def stem(self) -> str:
        """Return the name that the files of the record have, without endings."""
        return self.record.spec.stem


def read(shelf: Shelf, name: str) -> Parcel:
    """Read a record of a place; raises `RecordError`."""
    return parsed(shelf.title, name, shelf.read(name, MOST_BYTES))


def parsed(title: str, name: str, content: bytes) -> Parcel:
    """Return the record in the content of a file of a place; raises `RecordError`."""
    try:
        record = from_json(content.decode())
    except RecordError as error:
        raise RecordError(f"{title}/{name} {shortened(str(error), 600)}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{title}/{name} cannot be read: {shortened(str(error))}") from error
    folder = name.rpartition("/")[0]
    beside = {}
    changes: dict[str, Any] = {}
    for kind, ending in (("predictions", PREDICTIONS), ("weights", WEIGHTS)):
        entry = getattr(record, kind)
        if entry is None:
            continue
        own = entry["file"].rpartition("/")[2]
        beside[kind] = f"{folder}/{own}" if folder else own
        if entry["file"] != record.spec.stem + ending:
            changes[kind] = {**entry, "file": record.spec.stem + ending}
    if changes or json.loads(content)["schema"] != SCHEMA:
        record = replace(record, **changes)
        content = to_json(record).encode()
    return Parcel(name, record, content, beside.get("predictions"), beside.get("weights"))


def predictions(shelf: Shelf, parcel: Parcel, listing: Listing) -> bytes | None:
    """Return the content of the predictions file, None if it is missing.

    Raises `RecordError` if it is not the one that the record was written with.
    """
    entry, name = parcel.record.predictions, parcel.predictions
    if entry is None or name is None or name not in listing.items:
        return None
    content = shelf.read(name, most_bytes(parcel.record))
    _check(sha256(content), entry["sha256"], f"{shelf.title}/{name}", parcel)
    return content


def weights(shelf: Shelf, parcel: Parcel, listing: Listing, spool: Path) -> Path | None:
    """Return a local file with the weights, None if they are missing; see `predictions`.

    `spool`: where they are downloaded to.
    """
    entry, name = parcel.record.weights, parcel.weights
    if entry is None or name is None or name not in listing.items:
        return None
    file = shelf.local(name, spool)
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    _check(found, entry["sha256"], f"{shelf.title}/{name}", parcel)
    return file


def _check(found: str, expected: str, file: str, parcel: Parcel) -> None:
    if found != expected:
        raise RecordError(
            f"{file} is not the file that {parcel.name.rpartition('/')[2]} was written with"
        )


RESULTS = ("outcomes", "curves", "inference")


def conflict(first: Record, second: Record) -> list[str]:
    """Name what two records of one spec do not share; nothing if only times differ."""
    names = [one.name for one in differing(first, second)]
    kept = [(record.predictions or {}).get("sha256") for record in (first, second)]
    names += ["predictions"] if kept[0] != kept[1] else []
    names += [part for part in RESULTS if repr(getattr(first, part)) != repr(getattr(second, part))]
    names += ["weights"] if _of_weights(first) != _of_weights(second) else []
    return names


def _of_weights(record: Record) -> tuple[object, ...] | None:
    entry = record.weights
    return None if entry is None else (entry["sha256"], entry.get("rule"))

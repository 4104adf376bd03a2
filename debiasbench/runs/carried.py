"""Records as bytes: from a node without the results folder to the driver, which verifies them."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import RecordError
from debiasbench.common.wording import shortened
from debiasbench.records.beside import content, location, sha256
from debiasbench.records.reading import TRIAL
from debiasbench.records.record import Record, Result, from_json
from debiasbench.records.trial import Trial, Trials
from debiasbench.records.trial import from_json as trial_from_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from debiasbench.records.store import Store
    from debiasbench.specs.spec import Spec

RECORD, PREDICTIONS, WEIGHTS = "record", "predictions", "weights"


def packed(path: Path) -> dict[str, bytes]:
    """Return the content of a record and of the files beside it; raises `RecordError`."""
    try:
        files = {RECORD: path.read_bytes()}
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error
    record = _parsed(files[RECORD], trial=path.name.endswith(TRIAL))
    for kind in (PREDICTIONS, WEIGHTS):
        entry = getattr(record, kind, None)
        if entry is not None and location(path, entry).exists():
            files[kind] = content(path, entry)
    return files


def unpacked(store: Store | Trials, spec: Spec, files: Mapping[str, bytes]) -> Path:
    """Store the record, or the trial, of a spec and what is beside it; return its path.

    Raises `RecordError` if it is not a record of this spec with these files, and `StoreError`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    record = _parsed(files.get(RECORD, b""), trial=isinstance(store, Trials))
    if not _is_of(record, spec):
        raise RecordError(f"A node sent the record of {record.spec.stem} instead of {spec.group}")
    for kind in (PREDICTIONS, WEIGHTS):
        entry = getattr(record, kind, None)
        if kind in files and (entry is None or sha256(files[kind]) != entry["sha256"]):
            raise RecordError(f"The {kind} of {record.spec.stem} were damaged on the way")
    try:
        predictions = load(files[PREDICTIONS]) if PREDICTIONS in files else None
    except SafetensorError as error:
        raise RecordError(f"The predictions of {record.spec.stem} cannot be read") from error
    if isinstance(store, Trials):
        assert isinstance(record, Trial)
        return store.save(record, predictions)
    assert isinstance(record, Record)
    return store.save(record, predictions, files.get(WEIGHTS))


def _is_of(record: Result, spec: Spec) -> bool:
    """Say whether a record is that of a spec, which the machine may have resolved."""
    if not spec.unresolved:
        return record.id == spec.id
    names = [name for name, value in spec.training.items() if value == "auto"]
    training = {**record.spec.training, **dict.fromkeys(names, "auto")}
    return canonical(asdict(replace(record.spec, training=training))) == canonical(asdict(spec))


def _parsed(text: bytes, *, trial: bool) -> Record | Trial:
    try:
        return (trial_from_json if trial else from_json)(text.decode())
    except (RecordError, UnicodeDecodeError) as error:
        reason = shortened(str(error), 300)
        raise RecordError(f"The record that a node sent {reason}") from error

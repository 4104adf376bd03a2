"""Where records live: one JSON file a run, predictions beside it, written whole or not at all."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock, Timeout

from debiasbench.common.atomic import write_whole
from debiasbench.common.errors import BusyError, RecordError, StoreError
from debiasbench.records.record import Record, from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from debiasbench.specs.spec import Spec

    Predictions = Mapping[str, NDArray[np.integer]]

PREDICTIONS = ".predictions.safetensors"
WEIGHTS = ".weights.safetensors"
Overwrite = Literal["never", "failed", "always"]


@dataclass(frozen=True)
class Run:
    """A record, where it is, and whether it was made just now."""

    record: Record
    path: Path
    fresh: bool


class Store:
    """A folder of records. What a killed process leaves, its next start of the spec removes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, spec: Spec) -> Path:
        """Return where the record of `spec` is, or would be."""
        return self.folder / f"{spec.stem}.json"

    def load(self, spec: Spec) -> Record | None:
        """Return the record of `spec`, None if there is none.

        Raises `RecordError` naming a file that is there but cannot be read.
        """
        path = self.path(spec)
        if not path.exists():
            return None
        try:
            return read(path)
        except RecordError as error:
            raise RecordError(f"{error}. Remove it, or run with --overwrite always") from error

    def finished(
        self, spec: Spec, overwrite: Overwrite, *, with_weights: bool = False
    ) -> Record | None:
        """Return the record that makes running `spec` needless, None if it is to be run.

        `with_weights`: one whose weights were not kept does not.
        """
        if overwrite == "always":
            return None
        record = self.load(spec)
        if record is None or (record.status == "failed" and overwrite == "failed"):
            return None
        if with_weights and record.status == "ok" and record.weights is None:
            return None
        return None if self._is_torn(record) else record

    def _is_torn(self, record: Record) -> bool:
        """Say whether a process died between replacing the files beside the record and itself."""
        for named in (record.predictions, record.weights):
            if named is not None:
                beside = self.folder / Path(named["file"]).name
                if beside.exists() and sha256(beside.read_bytes()) != named["sha256"]:
                    return True
        return False

    @contextmanager
    def claim(self, spec: Spec) -> Iterator[None]:
        """Hold the right to run `spec`; the system gives it back when the process dies.

        Raises `BusyError` if another process holds it, `StoreError` if the folder is unwritable.
        """
        try:
            locks = self.folder / ".locks"
            locks.mkdir(parents=True, exist_ok=True)
            lock = FileLock(locks / f"{spec.stem}.lock", timeout=0)
            lock.acquire()
        except Timeout as error:
            raise BusyError(
                f"{spec.stem} is being run by another process. "
                "Wait for it, or use another --results"
            ) from error
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            for leftover in self.folder.glob(f".{spec.stem}.*"):
                leftover.unlink()
            yield
        finally:
            lock.release()

    def save(
        self, record: Record, predictions: Predictions | None, weights: bytes | None = None
    ) -> Path:
        """Write predictions and weights, then the record, each by its name only when complete."""
        from safetensors.numpy import save as tensors_to_bytes

        path = self.path(record.spec)
        content = None if predictions is None else tensors_to_bytes(dict(predictions))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for ending, kept in ((PREDICTIONS, content), (WEIGHTS, weights)):
                beside = path.with_name(record.spec.stem + ending)
                if kept is not None:
                    write_whole(beside, kept)
                else:
                    beside.unlink(missing_ok=True)
            write_whole(path, to_json(record).encode())
        except OSError as error:
            raise self._unwritable(error) from error
        return path

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(
            f"Cannot write to {self.folder}: {error.strerror or error}. "
            "Choose a folder with --results, or free space and permissions there"
        )


def digest(predictions: Predictions) -> str:
    """Return the SHA-256 of the predictions file."""
    from safetensors.numpy import save as tensors_to_bytes

    return sha256(tensors_to_bytes(dict(predictions)))


def read_weights(path: Path, record: Record) -> bytes:
    """Return the safetensors file of the weights that were kept beside a record.

    `path` is where `record` was read. Raises `RecordError` if there are none, or others.
    """
    if record.weights is None:
        raise RecordError(
            f"{path} was made without keeping weights: run it again with --keep-weights"
        )
    return _beside(path, record.weights)


def read_predictions(path: Path, record: Record, rule: str, split: str) -> Predictions:
    """Return y, group and predicted class, each (N,), of "val" or "test" under a selection rule.

    `path` is where `record` was read. Raises `RecordError` if the file is not the one it names.
    """
    from safetensors.numpy import load

    if record.predictions is None or rule not in record.outcomes:
        raise RecordError(f"{path} has no predictions for {rule}")
    stored = load(_beside(path, record.predictions))
    predicted = f"{split}.{prediction_key(record.outcomes[rule].epoch)}"
    return {
        "y": stored[f"{split}.y"],
        "group": stored[f"{split}.group"],
        "predicted": stored[predicted],
    }


def _beside(path: Path, named: Mapping[str, str]) -> bytes:
    """Read a file that a record names, from the record's own folder and nowhere else."""
    file = path.parent / Path(named["file"]).name
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror}") from error
    if sha256(content) != named["sha256"]:
        raise RecordError(f"{file} is not the file that {path.name} was written with")
    return content


def sha256(content: bytes) -> str:
    """Return the digest by which a record knows the files beside it."""
    return hashlib.sha256(content).hexdigest()


def prediction_key(epoch: int | None) -> str:
    """Name what was predicted after an epoch; rules that keep the same epoch share it."""
    return "final" if epoch is None else f"epoch_{epoch}"


def read(path: Path) -> Record:
    """Read a record file; raises `RecordError` naming it."""
    try:
        return from_json(path.read_text("utf-8"))
    except RecordError as error:
        raise RecordError(f"{path} {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error


def read_all(places: Iterable[Path]) -> tuple[list[tuple[Path, Record]], list[str]]:
    """Read every record in files and folders; return them and a line for each bad file.

    Folders are searched through; hidden files and folders are passed over.
    Raises `RecordError` for a place that is not there.
    """
    found: dict[Path, Record] = {}
    problems: list[str] = []
    for place in places:
        if not place.exists():
            raise RecordError(f"No results at {place}: give a record or a folder of records")
        files = sorted(place.rglob("*.json")) if place.is_dir() else [place]
        for file in files:
            hidden = any(part.startswith(".") for part in file.relative_to(place).parts)
            if file.resolve() in found or hidden:
                continue
            try:
                found[file.resolve()] = read(file)
            except RecordError as error:
                problems.append(str(error))
    return list(found.items()), problems


def write_text(path: Path, text: str) -> None:
    """Write a table or page whole or not at all; raises `StoreError`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; raises `StoreError`."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise StoreError(f"Cannot write {path}: {error.strerror or error}") from error

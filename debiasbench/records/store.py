"""A folder of records: one JSON file for each run, written completely or not at all."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from debiasbench.common.atomic import rewrite, write_whole
from debiasbench.common.errors import BusyError, RecordError, StoreError
from debiasbench.common.folders import entries
from debiasbench.common.locks import LockHeldError, locked
from debiasbench.records.beside import (
    PREDICTIONS,
    WEIGHTS,
    content,
    digest,
    location,
    prediction_key,
    read_inferred,
    read_predictions,
    read_weights,
    sha256,
)
from debiasbench.records.migrate import migrate
from debiasbench.records.reading import read, read_all
from debiasbench.records.record import Record, to_json
from debiasbench.records.upgrade import former_ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from debiasbench.records.beside import Predictions
    from debiasbench.specs.spec import Spec

__all__ = [
    "PREDICTIONS",
    "WEIGHTS",
    "Overwrite",
    "Run",
    "Store",
    "digest",
    "prediction_key",
    "read",
    "read_all",
    "read_inferred",
    "read_predictions",
    "read_weights",
    "sha256",
    "write_bytes",
    "write_text",
]

Overwrite = Literal["never", "failed", "always"]


@dataclass(frozen=True)
class Run:
    """A record, its path, and whether it was made by this call."""

    trial: ClassVar[bool] = False

    record: Record
    path: Path
    fresh: bool


class Store:
    """A folder of records.

    If a process is killed, the next run of the same spec removes its unfinished files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, spec: Spec) -> Path:
        """Return where the record of `spec` is, or would be written."""
        try:
            stored = self._find(spec)
        except RecordError:
            stored = None  # `load` reports what is wrong with it
        return self._target(spec) if stored is None else stored[0]

    def load(self, spec: Spec) -> Record | None:
        """Return the record of `spec`, None if there is none.

        Raises `RecordError` with the name of a file that exists but cannot be read.
        """
        try:
            stored = self._find(spec)
        except RecordError as error:
            raise RecordError(f"{error}. Remove it, or run with --overwrite always") from error
        return None if stored is None else stored[1]

    def _target(self, spec: Spec) -> Path:
        return self.folder / f"{spec.stem}.json"

    def _find(self, spec: Spec) -> tuple[Path, Record] | None:
        """Return the record of `spec` and its path, under its name or one that it had before.

        Raises `RecordError` for a damaged record, and `StoreError` for a folder that cannot be read
        and for a name that is too long.
        """
        try:
            return self._found(spec)
        except OSError as error:
            raise self._unreadable(error) from error

    def _found(self, spec: Spec) -> tuple[Path, Record] | None:
        """Return the record of `spec` and its path; raises `OSError`.

        A record of schema 1 may have the name of `spec` and turn out to be of another one, because
        its name did not tell precisions apart.
        """
        target = self._target(spec)
        if (record := _read_if_there(target)) is not None and record.id == spec.id:
            return target, record
        for former in former_ids(asdict(spec)):
            path = self.folder / f"{spec.stem.removesuffix(spec.id)}{former}.json"
            try:
                record = _read_if_there(path)
            except RecordError:
                continue  # whatever it is, it does not have the name of this spec
            if record is not None and record.id == spec.id:
                return path, record
        return None

    def finished(
        self, spec: Spec, overwrite: Overwrite, *, with_weights: bool = False
    ) -> Record | None:
        """Return the record that makes it unnecessary to run `spec`, None if it must be run.

        `with_weights`: a record without weights is not enough.
        """
        if overwrite == "always":
            return None
        record = self.load(spec)
        if record is None or (record.status == "failed" and overwrite == "failed"):
            return None
        if with_weights and record.status == "ok" and record.weights is None:
            return None
        return None if self._is_torn(record) else record

    def all_finished(
        self, specs: Mapping[str, Spec], overwrite: Overwrite
    ) -> Iterator[tuple[str, Record]]:
        """Yield the title and the record of each spec that need not be run; see `finished`.

        Raises `StoreError` for a folder that cannot be read.
        """
        for title, spec in self.maybe_recorded(specs).items():
            record = self.finished(spec, overwrite)
            if record is not None:
                yield title, record

    def maybe_recorded(self, specs: Mapping[str, Spec]) -> dict[str, Spec]:
        """Return the specs that may have a record, by title, from the names in the folder.

        This is much faster than to look for the record of each spec. Raises `StoreError` for a
        folder that cannot be read.
        """
        try:
            names = [file.name for file in self.folder.iterdir()]
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unreadable(error) from error
        groups = {name.rpartition("-")[0] for name in names if name.endswith(".json")}
        return {
            title: spec
            for title, spec in specs.items()
            if spec.group in groups and not spec.unresolved
        }

    def _is_torn(self, record: Record) -> bool:
        """Say whether a process died after it replaced a file beside the record."""
        for entry in (record.predictions, record.weights):
            if entry is not None:
                target = self._target(record.spec)
                try:
                    if location(target, entry).exists():
                        content(target, entry)
                except RecordError:
                    return True
        return False

    @contextmanager
    def claim(self, spec: Spec, *, tidy: bool = True) -> Iterator[None]:
        """Hold the right to run `spec`; it is free again when the process dies.

        `tidy`: whether to look through the whole folder for unfinished files of `spec`.
        Raises `BusyError` if another process holds it, `StoreError` if the folder is unwritable.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.folder, spec.stem, wait="if void"))
            except LockHeldError as error:
                raise BusyError(
                    f"{spec.stem} is being run by another process ({error.holder}). "
                    "Wait for it, or use another --results"
                ) from error
            except OSError as error:
                raise self._unwritable(error) from error
            if tidy:
                self._remove_unfinished(spec)
            yield

    def _remove_unfinished(self, spec: Spec) -> None:
        """Remove what a killed process wrote under temporary names; the caller holds the claim."""
        with suppress(OSError):
            for entry in entries(self.folder):
                if entry.name.startswith(f".{spec.stem}."):
                    with suppress(OSError):
                        Path(entry).unlink()

    def save(
        self, record: Record, predictions: Predictions | None, weights: bytes | None = None
    ) -> Path:
        """Write predictions and weights, then the record; a name appears when its file is complete.

        Replaces the record of the same spec, whatever its schema. A record of schema 1 that has
        the file's name but another spec is first given its own name.
        """
        from safetensors.numpy import save as tensors_to_bytes

        path = self._target(record.spec)
        content = None if predictions is None else tensors_to_bytes(dict(predictions))
        former = self._former(record.spec)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for ending, tensors in ((PREDICTIONS, content), (WEIGHTS, weights)):
                file = path.with_name(record.spec.stem + ending)
                if tensors is not None:
                    write_whole(file, tensors)
                else:
                    file.unlink(missing_ok=True)
            write_whole(path, to_json(record).encode())
            for file in former:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        return path

    def _former(self, spec: Spec) -> list[Path]:
        """Return the files of a record of `spec` under a former name; free the current name."""
        target = self._target(spec)
        try:
            current = _read_if_there(target)
            if current is not None and current.id != spec.id:
                migrate(target)
            stored = self._find(spec)
        except RecordError:
            return []  # a damaged file is replaced
        if stored is None or stored[0] == target:
            return []
        path, record = stored
        entries = [entry for entry in (record.predictions, record.weights) if entry is not None]
        return [path, *(location(path, entry) for entry in entries)]

    def _unreadable(self, error: OSError) -> StoreError:
        return StoreError(
            f"Cannot read {self.folder}: {error.strerror or error}. "
            "Choose another folder with --results, or check its name and permissions"
        )

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(
            f"Cannot write to {self.folder}: {error.strerror or error}. "
            "Choose another folder with --results, or check its permissions and the free disk space"
        )


def _read_if_there(path: Path) -> Record | None:
    """Read a record file, or return None if there is none; raises `RecordError`."""
    try:
        return read(path) if path.exists() else None
    except RecordError:
        if path.exists():
            raise
        return None  # another process has just removed it


def write_text(path: Path, text: str) -> None:
    """Write a user's text file completely or not at all; see `rewrite`. Raises `StoreError`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a user's file completely or not at all; see `rewrite`. Raises `StoreError`."""
    try:
        rewrite(path, content)
    except OSError as error:
        raise StoreError(f"Cannot write {path}: {error.strerror or error}") from error

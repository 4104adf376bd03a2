"""`Trial`: a run of a search, evaluated on the validation split alone; and the folder of trials."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from debiasbench.common.atomic import write_whole
from debiasbench.common.errors import RecordError, StoreError
from debiasbench.common.regular import read_regular
from debiasbench.common.wording import shortened
from debiasbench.records.beside import PREDICTIONS, content
from debiasbench.records.reading import MOST_BYTES, TRIAL
from debiasbench.records.record import Result, Selected, result_from_json, to_json
from debiasbench.records.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from debiasbench.records.beside import Predictions
    from debiasbench.records.store import Overwrite
    from debiasbench.specs.spec import Spec

FOLDER = "search"  # of trials and searches, in a folder of records
SCHEMA = 1


@dataclass(frozen=True)
class Trial(Result):
    """A run of a search: what a record has, without the test split, which a trial never reads."""

    outcomes: dict[str, Selected] = field(default_factory=dict)  # by selection rule
    schema: int = SCHEMA


@dataclass(frozen=True)
class TrialRun:
    """A trial, its path, and whether it was made by this call."""

    trial: ClassVar[bool] = True

    record: Trial
    path: Path
    fresh: bool


def read(path: Path) -> Trial:
    """Read the file of a trial; raises `RecordError` with its name."""
    try:
        return from_json(read_regular(path, MOST_BYTES).decode())
    except RecordError as error:
        raise RecordError(f"{path} {shortened(str(error), 600)}") from error
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} cannot be read: {shortened(str(error))}") from error


def from_json(text: str) -> Trial:
    """Read a trial; raises `RecordError`, whose message continues the name of a file."""
    return result_from_json(text, Trial, _known)


def _known(data: dict[str, Any]) -> dict[str, Any]:
    if data["schema"] != SCHEMA:
        raise RecordError(
            f"has trial schema {shortened(repr(data['schema']))}; this version of debiasbench "
            f"reads schema {SCHEMA}"
        )
    return data


class Trials:
    """The trials of a folder of records, which are in its folder `search`."""

    def __init__(self, results: Path) -> None:
        self.folder = results / FOLDER
        self._store = Store(self.folder)  # claims, and which specs may have a file

    def path(self, spec: Spec) -> Path:
        """Return where the trial of `spec` is, or would be written."""
        return self.folder / f"{spec.stem}{TRIAL}"

    def load(self, spec: Spec) -> Trial | None:
        """Return the trial of `spec`, None if there is none.

        Raises `RecordError` with the name of a file that exists but cannot be read.
        """
        path = self.path(spec)
        try:
            return read(path) if path.exists() else None
        except RecordError as error:
            if not path.exists():
                return None  # another process has just removed it
            raise RecordError(f"{error}. Remove it, or use --overwrite always") from error

    def finished(self, spec: Spec, overwrite: Overwrite) -> Trial | None:
        """Return the trial that makes it unnecessary to run `spec`, None if it must be run.

        A trial whose training failed counts, unless all are made again: it would fail again, and a
        search that is continued must come to the same end.
        """
        if overwrite == "always" or (trial := self.load(spec)) is None:
            return None
        try:
            if trial.predictions is not None:
                content(self.path(spec), trial.predictions)
        except RecordError:
            return None  # a process died after it replaced the predictions, or they were removed
        return trial

    def all_finished(
        self, specs: Mapping[str, Spec], overwrite: Overwrite
    ) -> Iterator[tuple[str, Trial]]:
        """Yield the title and the trial of each spec that need not be run; see `finished`."""
        for title, spec in self._store.maybe_recorded(specs).items():
            if (trial := self.finished(spec, overwrite)) is not None:
                yield title, trial

    def claim(self, spec: Spec) -> AbstractContextManager[None]:
        """Hold the right to run `spec`; see `Store.claim`."""
        return self._store.claim(spec)

    def save(self, trial: Trial, predictions: Predictions | None) -> Path:
        """Write predictions, then the trial; a name appears when its file is complete."""
        from safetensors.numpy import save as tensors_to_bytes

        path = self.path(trial.spec)
        beside = self.folder / (trial.spec.stem + PREDICTIONS)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if predictions is None:
                beside.unlink(missing_ok=True)
            else:
                write_whole(beside, tensors_to_bytes(dict(predictions)))
            write_whole(path, to_json(trial).encode())
        except OSError as error:
            raise StoreError(
                f"Cannot write to {self.folder}: {error.strerror or error}. Choose another folder "
                "with --results, or check its permissions and the free disk space"
            ) from error
        return path

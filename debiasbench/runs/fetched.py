"""Checkpoints on the way between nodes without a shared folder and the driver, where asked."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from debiasbench.common.atomic import write_whole
from debiasbench.common.errors import StoreError
from debiasbench.common.folders import entries, status
from debiasbench.common.locks import FOLDER as LOCKS
from debiasbench.common.locks import LockHeldError, locked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    # "stage/file" -> time of its last change in seconds since 1970, and its content
    Files = Mapping[str, tuple[float, bytes]]

STAGES = ".stages"  # of debiasbench.training.stage_store, which imports torch
_FILE = re.compile(r"[0-9a-f]{32}/(running|finished)")
_ID = re.compile(r"[0-9a-f]{16}")


class Fetching:
    """A node's side: finds the stages that a process trains, and what is new in them.

    `every`: seconds between two looks.
    """

    def __init__(self, results: Path, every: float) -> None:
        self._stages, self._every = results / STAGES, every
        self._looked = self._sent_at = time.monotonic()
        self._names: set[str] = set()
        self._known: dict[str, tuple[float, int]] = {}  # time and size of what was sent

    def due(self, process: int, *, finally_: bool) -> dict[str, tuple[float, bytes]]:
        """Return new files of the stages that a process trains, if it is time; `finally_`: now."""
        now = time.monotonic()
        if finally_ or now - self._looked >= 1.0:
            self._looked = now
            self._names |= self._locked_by(process)
        if not finally_ and now - self._sent_at < self._every:
            return {}
        self._sent_at = now
        return self._new()

    def forget(self) -> None:
        """Forget the stages of the last runs."""
        self._names.clear()

    def _locked_by(self, process: int) -> set[str]:
        names = set()
        for entry in entries(self._stages / LOCKS):
            with suppress(OSError):
                if f"pid={process}\n" in Path(entry.path).read_text(errors="replace"):
                    names.add(entry.name.rpartition(".")[0])
        return names

    def _new(self) -> dict[str, tuple[float, bytes]]:
        files = {}
        for name in sorted(self._names):
            for entry in entries(self._stages / name):
                found = status(entry)
                title = f"{name}/{entry.name}"
                if found is None or not _FILE.fullmatch(title):
                    continue
                key = (found.st_mtime, found.st_size)
                with suppress(OSError):
                    if self._known.get(title) != key:
                        files[title] = (found.st_mtime, Path(entry.path).read_bytes())
                        self._known[title] = key
        return files


def put(results: Path, files: Files) -> None:
    """Write files of stages, unless newer ones are there; raises `StoreError`.

    A stage that a process is training is left alone.
    """
    folder = results / STAGES
    for title, (changed, content) in files.items():
        if not _FILE.fullmatch(title):
            raise StoreError(f"A node sent {title[:80]!r}, which is no file of a stage")
        path = folder / title
        try:
            with locked(folder, path.parent.name, wait="never"):
                found = status(path)
                if found is None or found.st_mtime < changed:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_whole(path, content)
                    os.utime(path, (changed, changed))
        except LockHeldError:
            continue
        except OSError as error:
            raise StoreError(f"Cannot write to {folder}: {error.strerror or error}") from error


class Fetched:
    """The driver's side: remembers on disk which stages the runs of nodes have."""

    def __init__(self, results: Path) -> None:
        self._results = results

    def keep(self, ids: Iterable[str], files: Files) -> None:
        """Store files of the unfinished stages of runs; raises `StoreError`."""
        put(self._results, files)
        for run in ids:
            names = sorted({*self._names(run), *(title.partition("/")[0] for title in files)})
            write_whole(self._list(run), "".join(f"{name}\n" for name in names).encode())

    def of(self, run: str) -> dict[str, tuple[float, bytes]]:
        """Return the files of the stages of a run."""
        files = {}
        for name in self._names(run):
            for kind in ("running", "finished"):
                path = self._results / STAGES / name / kind
                with suppress(OSError):
                    files[f"{name}/{kind}"] = (path.stat().st_mtime, path.read_bytes())
        return files

    def forget(self, run: str) -> None:
        """Remove the stages of a run that is finished, unless another run has them too."""
        own = set(self._names(run))
        self._list(run).unlink(missing_ok=True)
        if not own:
            return
        for other in (self._results / STAGES).glob(".run-*"):
            own -= set(self._names(other.name.removeprefix(".run-")))
        for name in own:
            shutil.rmtree(self._results / STAGES / name, ignore_errors=True)

    def _list(self, run: str) -> Path:
        assert _ID.fullmatch(run)
        return self._results / STAGES / f".run-{run}"

    def _names(self, run: str) -> list[str]:
        try:
            names = self._list(run).read_text().split()
        except OSError:
            return []
        return [name for name in names if _FILE.fullmatch(f"{name}/running")]

"""Jobs: the runs that a command hands to other processes, as a file that they read."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from debiasbench.common.canonical import Strict
from debiasbench.common.errors import RecordError
from debiasbench.common.wording import shortened
from debiasbench.records.plain import refused
from debiasbench.records.spec_file import read_json
from debiasbench.runs.session_options import SessionOptions
from debiasbench.specs.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import TypeAdapter

VERSION = 1


@dataclass(frozen=True)
class Jobs(Strict):
    """Runs, by title, and what a process needs to do them.

    `session`, `overwrite`: as for a run here. `together`: number of runs that a process trains at
    once. `keep_going`: whether to begin more runs after one has failed. `working_folder`: where the
    command was given, where relative paths begin. `files`: where to load classes of files from,
    see `Plugins.files`. `debug`: whether to print tracebacks. `quiet`:
    whether to print no progress. `trial`: whether the runs are trials of searches.

    For workers that take runs from a folder, see `debiasbench.runs.pull`: `workers`: their number.
    `processes`: those of each worker. `replaces`: the SHA-256 of the record that a run is to
    replace, by title; any other record is that of another worker.
    """

    specs: dict[str, Spec]
    session: SessionOptions
    overwrite: Literal["never", "failed", "always"] = "failed"
    together: int = 1
    keep_going: bool = True
    working_folder: Path = Path()
    debug: bool = False
    quiet: bool = False
    trial: bool = False
    files: dict[str, list[str]] = field(default_factory=dict)
    workers: int = 1
    processes: int = 1
    replaces: dict[str, str] = field(default_factory=dict)
    version: int = VERSION

    def only(self, titles: Iterable[str]) -> Jobs:
        """Return the jobs with these titles."""
        return replace(self, specs={title: self.specs[title] for title in titles})

    def to_json(self) -> str:
        """Return the jobs as JSON, with absolute paths."""
        absolute = replace(
            self,
            session=self.session.absolute(),
            working_folder=self.working_folder.absolute(),
        )
        return json.dumps(asdict(absolute), default=os.fspath) + "\n"

    def write(self, file: Path) -> None:
        """Write the jobs; raises `StoreError`."""
        from debiasbench.records.store import write_text  # imports NumPy

        write_text(file, self.to_json())


def read_jobs(file: Path) -> Jobs:
    """Read what `Jobs.write` wrote; raises `RecordError`."""
    content = read_json(file)
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise RecordError(
            f"{file} holds no jobs that this version of debiasbench knows (version "
            f"{shortened(str(version))}, known is {VERSION}): give the command again that made it"
        )
    return jobs_of(content, str(file))


def jobs_of(content: Any, file: str) -> Jobs:
    """Return the jobs that JSON describes; raises `RecordError`, with the name of its file."""
    from pydantic import ValidationError

    try:
        return _reader().validate_python(content)
    except ValidationError as error:
        raise RecordError(f"{file} is no file of jobs: {refused(error)}") from error


@cache
def _reader() -> TypeAdapter[Jobs]:
    from pydantic import TypeAdapter

    return TypeAdapter(Jobs)

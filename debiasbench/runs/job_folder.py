"""`JobFolder`: the files by which pull workers share runs and tell each other their outcomes."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from debiasbench.common.atomic import write_whole
from debiasbench.common.canonical import digest
from debiasbench.common.errors import StoreError
from debiasbench.common.folders import entries
from debiasbench.runs.sweep import Attempt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from debiasbench.specs.spec import Spec

FOLDER = ".jobs"
FINAL = {"done", "trained", "failed"}  # states after which a run is not begun again
STATES = FINAL | {"begun", "elsewhere", "interrupted", "lost"}


class JobFolder:
    """The folder of a command whose runs are done by pull workers.

    It is in the results folder, which the workers share. `outcomes-K.jsonl`: what worker K told,
    one `Line` in a line, which only worker K writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.jobs, self.script, self.logs = path / "jobs.json", path / "array.sh", path / "logs"
        self._known = path / "records.json"

    @classmethod
    def of(cls, results: Path, specs: Mapping[str, Spec]) -> JobFolder:
        """Return the folder of these runs, by title, so that the same command finds it again."""
        whole = {title: asdict(spec) for title, spec in specs.items()}
        return cls(results.absolute() / FOLDER / digest(whole)[:12])

    @property
    def results(self) -> Path:
        """The results folder that it is in."""
        return self.path.parent.parent

    @property
    def name(self) -> str:
        """The name of the array; the same runs have another one in another results folder."""
        return f"debiasbench-{digest([str(self.path)])[:12]}"

    def outcomes(self, worker: int) -> Path:
        """Return the file in which a worker tells its outcomes."""
        return self.path / f"outcomes-{worker}.jsonl"

    def clear(self) -> None:
        """Remove the outcomes of earlier workers, none of which runs any longer; raises `OSError`.

        One that runs all the same goes on in a file that nobody reads. The names of records stay.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self._known, json.dumps(self.records()).encode())
        for file in self._files():
            file.unlink(missing_ok=True)

    def records(self) -> dict[str, str]:
        """Return the files of the records that workers made, within the results folder, by title.

        Where a spec leaves the precision to the device of its worker, nothing else tells them.
        """
        try:
            known = json.loads(self._known.read_bytes())
        except (OSError, ValueError):
            known = {}
        told = Told(self)
        told.read()
        known |= {title: line.file for title, line in told.final.items() if line.file}
        return {str(title): within(str(name)) for title, name in known.items()}

    def _files(self) -> list[Path]:
        found = (Path(entry) for entry in entries(self.path))
        return [path for path in found if path.match("outcomes-*.jsonl")]


def within(file: str) -> str:
    """Return a path within a folder: only the name of the file if the path may lead out of it."""
    path = PurePosixPath(file)
    return path.name if path.is_absolute() or ".." in path.parts else str(path)


@dataclass(frozen=True)
class Line:
    """What happened to a run.

    `state`: that of `Attempt`, or "begun", "interrupted" (it was stopped, and can be begun again)
    or "lost" (its process died). `worker`: who told it; `restart`: how often Slurm had restarted
    that worker.
    """

    title: str
    state: str
    worker: int = 0
    restart: int = 0
    problem: str = ""
    exit_code: int = 0
    file: str = ""  # of the record or trial, within the results folder

    @classmethod
    def of(cls, title: str, attempt: Attempt, results: Path) -> Line:
        """Return the line of an outcome, whose record is in the folder `results`."""
        file = "" if attempt.path is None else attempt.path.name
        if attempt.path is not None and attempt.path.is_relative_to(results):
            file = attempt.path.relative_to(results).as_posix()
        return cls(
            title,
            attempt.state,
            problem=attempt.problem,
            exit_code=attempt.exit_code,
            file=file,
        )

    def attempt(self, results: Path) -> Attempt:
        """Return the outcome, whose record is in the folder `results`."""
        path = results / within(self.file) if self.file else None
        plain: dict[str, Any] = {
            "state": self.state,
            "path": None if path is None else str(path),
            "problem": self.problem,
            "exit_code": self.exit_code,
        }
        return Attempt.from_plain(plain)


class Told:
    """What the workers have told so far.

    `final`: the outcomes of the runs that must not be begun again. `unread`: lines since the last
    call of `read`.
    """

    def __init__(self, folder: JobFolder, *, starts_over: bool = False) -> None:
        self._folder = folder
        self._starts_over = starts_over
        self._read: dict[str, int] = {}  # bytes of each file
        self._open: Counter[str] = Counter()  # runs -> times begun without an end
        self._problems: dict[str, str] = {}  # of runs that were lost
        self.final: dict[str, Line] = {}
        self.failed = False  # whether any run has

    def read(self) -> list[Line]:
        """Read what was written since the last call, and return it."""
        lines = [line for file in self._folder._files() for line in self._new(file)]
        for line in lines:
            self._note(line)
        return lines

    def losses(self, title: str) -> int:
        """Return how often a run was begun and neither ended nor was stopped.

        Its worker must not be at work on it. With `starts_over`, stops count too, since the run
        cannot continue.
        """
        return self._open[title]

    def problem(self, title: str) -> str:
        """Return what a worker told of a run that was lost, "" if the worker was lost too."""
        return self._problems.get(title, "")

    def _note(self, line: Line) -> None:
        if line.state == "begun":
            self._open[line.title] += 1
        elif line.state == "lost":
            self._problems[line.title] = line.problem
        elif line.state in FINAL:
            self.final.setdefault(line.title, line)
            self.failed |= line.state == "failed"
        if line.state == "elsewhere" or (line.state == "interrupted" and not self._starts_over):
            self._open[line.title] -= 1

    def _new(self, file: Path) -> Iterator[Line]:
        """Yield the complete lines of a file that were not read before."""
        begin = self._read.get(file.name, 0)
        try:
            with file.open("rb") as opened:
                opened.seek(begin)
                text = opened.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"Cannot read {file}: {error.strerror or error}") from error
        whole = text.rpartition(b"\n")[0]
        self._read[file.name] = begin + len(whole) + (b"\n" in text)
        for line in whole.split(b"\n"):
            if (read := _line(line)) is not None:
                yield read


class Outcomes:
    """The file in which this worker tells its outcomes."""

    def __init__(self, folder: JobFolder, worker: int, restart: int) -> None:
        self._path, self._worker, self._restart = folder.outcomes(worker), worker, restart
        earlier = _lines(self._path)
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o666)
        except OSError as error:
            raise self._error(error) from error
        self.tell(Line("", ""))  # ends a line that this worker did not finish when it was killed
        for title in _unfinished(earlier, restart):
            self.tell(Line(title, "interrupted", problem="Slurm restarted its worker"))

    def tell(self, line: Line) -> None:
        """Write a line; raises `StoreError`."""
        plain = asdict(replace(line, worker=self._worker, restart=self._restart))
        text = json.dumps({name: value for name, value in plain.items() if value != ""})
        try:
            # in one write, so that readers see no other line in between
            os.write(self._file, f"{text}\n".encode() if line.title else b"\n")
            os.fsync(self._file)  # a file system on a network shows it to others then
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _error(self, error: OSError) -> StoreError:
        return StoreError(f"Cannot write {self._path}: {error.strerror or error}")


def _unfinished(lines: list[Line], restart: int) -> list[str]:
    """Return the runs at which a worker was when Slurm restarted it, as after a pre-emption.

    The runs are not to blame for that. If Slurm did not restart it, they may be.
    """
    open_runs: dict[str, int] = {}
    for line in lines:
        if line.state == "begun":
            open_runs[line.title] = line.restart
        else:
            open_runs.pop(line.title, None)
    return [title for title, when in open_runs.items() if when < restart]


def _lines(file: Path) -> list[Line]:
    try:
        text = file.read_bytes()
    except OSError:
        return []
    return [line for line in map(_line, text.split(b"\n")) if line is not None]


def _line(text: bytes) -> Line | None:
    """Return the line that a text holds, or None: its writer may have been killed."""
    try:
        line = Line(**json.loads(text))
    except (ValueError, TypeError):
        return None
    kinds = {"worker": int, "restart": int, "exit_code": int}
    right = all(type(v) is kinds.get(k, str) for k, v in asdict(line).items())
    return line if right and line.title and line.state in STATES else None

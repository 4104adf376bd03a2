"""Run many specs, one after the other or several at once: the outcome of each, and a summary."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import (
    BusyError,
    DebiasbenchError,
    Interrupted,
    StoreError,
    TrainingFailed,
)
from debiasbench.common.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from debiasbench.records.store import Overwrite, Run
    from debiasbench.records.trial import TrialRun
    from debiasbench.runs.session import Session
    from debiasbench.specs.spec import Spec


@dataclass(frozen=True)
class Attempt:
    """The outcome of one run of a sweep.

    "done": it already had a record. "trained": it was run now. "elsewhere": another process is
    running it. "failed": see `problem` and `exit_code`. `path`: of the record, if there is one.
    """

    state: Literal["done", "trained", "elsewhere", "failed"]
    path: Path | None = None
    problem: str = ""
    exit_code: int = 0
    error: DebiasbenchError | None = None

    def as_plain(self) -> dict[str, Any]:
        """Return the attempt as JSON can hold it, without the exception."""
        path = None if self.path is None else str(self.path)
        plain = {"path": path, "problem": self.problem, "exit_code": self.exit_code}
        return {"state": self.state} | {name: value for name, value in plain.items() if value}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Attempt:
        """Return what `as_plain` was made from."""
        path = plain.get("path")
        return cls(**{**plain, "path": None if path is None else Path(path)})


def attempt(
    open_session: Callable[[], Session], spec: Spec, overwrite: Overwrite, *, trial: bool = False
) -> Attempt:
    """Run a spec unless it has a record, and return the outcome.

    `trial`: run it as a trial of a search. Raises `Interrupted`, and `StoreError`, after which no
    other run could be stored either.
    """
    try:
        session = open_session()
        run = session.trial if trial else session.run
        return _attempted(run(spec, overwrite=overwrite))
    except (Interrupted, StoreError):
        raise
    except DebiasbenchError as error:
        return _attempted(error)


def attempt_together(
    open_session: Callable[[], Session],
    specs: Mapping[str, Spec],
    overwrite: Overwrite,
    report: Callable[[str, Attempt], object],
    *,
    trial: bool = False,
) -> None:
    """Run specs, by title, at once unless they have records; report each outcome when it is known.

    `trial`: run them as trials of a search. Raises as `attempt` does.
    """
    left = dict(specs)

    def ended(spec: Spec, outcome: Run | TrialRun | DebiasbenchError) -> None:
        same = [title for title, each in left.items() if each.resolved_as(spec).id == spec.id]
        for title in same:
            del left[title]
            report(title, _attempted(outcome))

    outcomes: Sequence[Run | TrialRun | DebiasbenchError]
    try:
        session = open_session()
        run_all = session.trial_many if trial else session.run_many
        outcomes = run_all(specs.values(), overwrite=overwrite, report=ended)
    except (Interrupted, StoreError):
        raise
    except DebiasbenchError as error:
        outcomes = [error for _ in specs]
    for title, outcome in zip(specs, outcomes, strict=True):
        if title in left:  # such as a spec that could not be resolved
            report(title, _attempted(outcome))


def _attempted(outcome: Run | TrialRun | DebiasbenchError) -> Attempt:
    if isinstance(outcome, BusyError):
        return Attempt("elsewhere")
    if isinstance(outcome, DebiasbenchError):
        problem, code = str(outcome), outcome.exit_code
        return Attempt("failed", problem=problem, exit_code=code, error=outcome)
    # a trial that diverged is a result of its search, and would diverge again
    if outcome.record.failure is not None and not outcome.trial:
        problem = outcome.record.failure.message
        return Attempt("failed", outcome.path, problem, TrainingFailed.exit_code)
    return Attempt("trained" if outcome.fresh else "done", outcome.path)


def in_batches(
    specs: Mapping[str, Spec], number: Callable[[Spec], int]
) -> Iterator[dict[str, Spec]]:
    """Divide specs, by title, into those that are run at once: similar ones, in their order.

    `number`: how many runs such as a spec are run at once; it is asked before each batch.
    """
    similar: dict[str, deque[str]] = {}  # titles that are left
    kinds = {title: kind(spec) for title, spec in specs.items()}
    for title in specs:
        similar.setdefault(kinds[title], deque()).append(title)
    for title, spec in specs.items():
        left = similar[kinds[title]]
        if left and left[0] == title:  # otherwise it was in an earlier batch
            size = min(len(left), max(1, number(spec)))
            yield {each: specs[each] for each in (left.popleft() for _ in range(size))}


def kind(spec: Spec) -> str:
    """Return a text that is equal for runs that probably take the same steps."""
    training = {name: value for name, value in spec.training.items() if name != "lr"}
    return canonical([spec.dataset.name, asdict(spec.model), training])


@dataclass
class Tally:
    """The number of runs of a sweep by outcome, so far."""

    total: int
    done: int = 0  # with a record from before, or from another process
    trained: int = 0
    elsewhere: int = 0  # another process is training them
    codes: list[int] = field(default_factory=list)  # exit codes of failed runs

    def count(self, attempt: Attempt) -> None:
        """Count an attempt."""
        match attempt.state:
            case "done":
                self.done += 1
            case "trained":
                self.trained += 1
            case "elsewhere":
                self.elsewhere += 1
            case "failed":
                self.codes.append(attempt.exit_code)

    @property
    def left(self) -> int:
        """Number of runs that were not attempted."""
        return self.total - self.done - self.trained - self.elsewhere - len(self.codes)

    def __str__(self) -> str:
        parts = [f"{self.trained} trained", f"{self.done} already done"]
        parts += [f"{self.elsewhere} running in other processes"] if self.elsewhere else []
        parts += [f"{len(self.codes)} failed"] if self.codes else []
        parts += [f"{self.left} left"] if self.left else []
        return f"{counted(self.total, 'run')}: {', '.join(parts)}"

"""Run many specs one after the other: the outcome of each, and a summary."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from debiasbench.common.errors import (
    BusyError,
    DebiasbenchError,
    Interrupted,
    StoreError,
    TrainingFailed,
)
from debiasbench.common.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from debiasbench.records.store import Overwrite, Run
    from debiasbench.runs.session import Session
    from debiasbench.specs.spec import Spec


@dataclass(frozen=True)
class Attempt:
    """The outcome of one run of a sweep.

    "done": it already had a record. "trained": it was run now. "elsewhere": another process is
    running it. "failed": see `problem` and `exit_code`.
    """

    state: Literal["done", "trained", "elsewhere", "failed"]
    run: Run | None = None
    problem: str = ""
    exit_code: int = 0
    error: DebiasbenchError | None = None


def attempt(open_session: Callable[[], Session], spec: Spec, overwrite: Overwrite) -> Attempt:
    """Run a spec unless it has a record, and return the outcome.

    Raises `Interrupted`, and `StoreError`, after which no other run could be stored either.
    """
    try:
        run = open_session().run(spec, overwrite=overwrite)
    except (Interrupted, StoreError):
        raise
    except BusyError:
        return Attempt("elsewhere")
    except DebiasbenchError as error:
        return Attempt("failed", problem=str(error), exit_code=error.exit_code, error=error)
    if run.record.failure is not None:
        return Attempt("failed", run, run.record.failure.message, TrainingFailed.exit_code)
    return Attempt("trained" if run.fresh else "done", run)


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

"""`Puller`: a worker that takes runs from a folder of jobs, as long as there are any."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from debiasbench.common.canonical import digest
from debiasbench.common.errors import Interrupted, RecordError, StoreError, TrainingFailed
from debiasbench.common.locks import LockHeldError, locked
from debiasbench.records.beside import sha256
from debiasbench.records.store import Store
from debiasbench.records.trial import Trials
from debiasbench.runs.crew import AGAIN, INTERRUPTED, Hand
from debiasbench.runs.job_folder import FINAL, Line, Outcomes, Told
from debiasbench.runs.sweep import Attempt, kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from debiasbench.common.locks import Wait
    from debiasbench.common.signals import Stop
    from debiasbench.runs.crew import End
    from debiasbench.runs.job_folder import JobFolder
    from debiasbench.runs.jobs import Jobs

LOSSES = 3  # times that a run may take its process down before it counts as failed
LOOK = 1.0  # seconds between two looks at runs that other workers have


def lock_name(title: str) -> str:
    """Return the name of the lock of a run."""
    return digest(title)[:16]


@dataclass
class _Hired:
    hand: Hand
    ready: bool = False
    runs: dict[str, ExitStack] = field(default_factory=dict)  # without outcome -> their locks


class Puller:
    """Does the runs of a folder of jobs together with other pull workers; no two have the same run.

    Each run is locked while a worker has it, so a run that has an outcome is not begun again. The
    runs themselves are done by processes of this worker, so that a run that crashes leaves the
    worker alive.

    `number`, `restart`: which worker this is, and how often Slurm has restarted it. `hire`: starts
    the process with a number below `jobs.processes`. `wait`: waits shortly until one of the
    processes reports. `report`: receives each outcome of this worker.
    """

    def __init__(
        self,
        jobs: Jobs,
        folder: JobFolder,
        number: int,
        hire: Callable[[int], Hand],
        wait: Callable[[Sequence[Any]], object],
        report: Callable[[str, Attempt], object],
        stop: Stop,
        *,
        restart: int = 0,
    ) -> None:
        self._jobs, self._folder = jobs, folder
        self._store = (Trials if jobs.trial else Store)(jobs.session.results)
        self._hire, self._wait, self._report, self._stop = hire, wait, report, stop
        self._told = Told(folder, starts_over=jobs.overwrite == "always")
        self._outcomes = Outcomes(folder, number, restart)
        self._hired: dict[int, _Hired] = {}
        titles = list(jobs.specs)
        first = number * len(titles) // max(jobs.workers, 1) % max(len(titles), 1)
        self._left = titles[first:] + titles[:first]  # runs without outcome, this worker's order
        self._later: dict[str, float] = {}  # runs that are trained elsewhere -> when to try again
        self._looked = 0.0  # when the last look at all runs that are left found none to begin
        self._stored = False  # whether anything was, that another start of this worker can use
        self._code = 0

    def run(self) -> int:
        """Do runs until each has an outcome, and return the exit code.

        It is that of `Interrupted` if this worker was stopped, and that of a process that could not
        start or could not store anything.
        """
        dismissed = stopped = False
        self._stop.at_once.append(self._kill)
        try:
            while self._going() or self._hired:
                self._wait([hired.hand for hired in self._hired.values()])
                self._listen()
                if self._stop.requested and not stopped:
                    stopped = True
                    self._stop_all()
                if self._going():
                    self._hand_out()
                elif not dismissed:
                    dismissed = True
                    for hired in self._hired.values():
                        hired.hand.order(None)
        finally:
            self._stop.at_once.remove(self._kill)
            for hired in self._hired.values():  # after an error in this process
                hired.hand.close()
                self._free(hired)
            self._outcomes.close()
        if not self._stop.requested:
            return self._code
        return Interrupted.exit_code if self._stored else Interrupted.NOTHING_STORED

    def _going(self) -> bool:
        """Return whether there are runs left that this worker may begin, or wait for."""
        if self._stop.requested or self._code or (self._told.failed and not self._jobs.keep_going):
            return False
        return bool(self._left) or any(hired.runs for hired in self._hired.values())

    def _stop_all(self) -> None:
        # a worker that waits for the runs of others has stored all that it could
        self._stored |= not any(hired.runs for hired in self._hired.values())
        for hired in self._hired.values():
            hired.hand.stop()

    def _kill(self) -> None:
        for hired in self._hired.values():
            hired.hand.kill()

    def _listen(self) -> None:
        """Tell what the processes report, and let go of those that have ended."""
        for number, hired in list(self._hired.items()):
            end = hired.hand.ended()  # before the last reports are read
            for message in hired.hand.reports():
                if message is None:
                    hired.ready = True
                else:
                    self._answer(hired, message[0], Attempt.from_plain(message[1]))
            if end is not None:
                del self._hired[number]
                hired.hand.close()
                self._bury(hired, end)

    def _answer(self, hired: _Hired, title: str, outcome: Attempt) -> None:
        self._outcomes.tell(Line.of(title, outcome, self._folder.results))
        if outcome.state == "elsewhere":
            # another command trains it, or a process whose worker was lost still does
            self._later[title] = time.monotonic() + AGAIN
        else:
            self._stored |= outcome.state == "trained"
            self._report(title, outcome)
        hired.runs.pop(title).close()

    def _bury(self, hired: _Hired, end: End) -> None:
        """Account for a process that has ended, and for the runs that it left."""
        self._stored |= end.code == Interrupted.exit_code
        unable = end.code == StoreError.exit_code or (end.code > 0 and not hired.ready)
        stopped = end.code in INTERRUPTED
        if unable and not stopped:  # another process would end in the same way
            self._code = end.code
        for title in hired.runs:
            state = "interrupted" if unable or stopped else "lost"
            self._outcomes.tell(Line(title, state, problem=end.how, exit_code=max(end.code, 1)))
        self._free(hired)

    def _free(self, hired: _Hired) -> None:
        for lock in hired.runs.values():
            lock.close()
        hired.runs.clear()

    def _hand_out(self) -> None:
        """Give runs to the processes that have none; start a process when there is one to do."""
        if time.monotonic() - self._looked < LOOK:
            return
        for number in range(self._jobs.processes):
            hired = self._hired.get(number)
            if hired is not None and hired.runs:
                continue
            runs = self._claimed()
            if not runs:
                self._looked = time.monotonic()
                return
            if hired is None:
                hired = self._hired[number] = _Hired(self._hire(number))
            hired.runs = runs
            hired.hand.order(list(runs))

    def _claimed(self) -> dict[str, ExitStack]:
        """Lock runs that one process does at once, and return them with their locks."""
        self._refresh()
        batch: dict[str, ExitStack] = {}
        if not self._going():
            return batch
        similar = ""
        now = time.monotonic()
        for title in list(self._left):
            if self._later.get(title, 0) > now or title in self._own():
                continue
            own = kind(self._jobs.specs[title]) if self._jobs.together > 1 else ""
            if batch and (own != similar or self._told.losses(title)):
                continue
            lock = self._locked(title)
            if lock is None:
                continue
            batch[title], similar = lock, own
            # a run that took a process down is done alone
            if len(batch) >= self._jobs.together or self._told.losses(title):
                break
        for title in batch:
            self._outcomes.tell(Line(title, "begun"))
        return batch

    def _own(self) -> Iterator[str]:
        return (title for hired in self._hired.values() for title in hired.runs)

    def _refresh(self) -> None:
        """Read what other workers told."""
        if any(line.state in FINAL for line in self._told.read()):
            self._left = [title for title in self._left if title not in self._told.final]

    def _locked(self, title: str) -> ExitStack | None:
        """Lock a run and return its lock, or None if another worker has it or it has an outcome."""
        idle = not any(hired.runs for hired in self._hired.values())
        lock = ExitStack()
        try:
            # whoever has other runs does not wait for a claim to become void
            wait: Wait = "if void" if idle else "never"
            lock.enter_context(locked(self._folder.path, lock_name(title), wait=wait))
        except (LockHeldError, Interrupted):
            return None
        except OSError as error:
            folder, reason = self._folder.path, error.strerror or error
            raise StoreError(f"Cannot write to {folder}: {reason}") from error
        self._refresh()  # what its last worker told before it released the lock
        if title not in self._told.final:
            outcome = self._recorded(title) or self._given_up(title)
            if outcome is None:
                return lock
            self._outcomes.tell(Line.of(title, outcome, self._folder.results))
            self._report(title, outcome)
        lock.close()
        return None

    def _recorded(self, title: str) -> Attempt | None:
        """Return the outcome of a run that has a record which need not be replaced."""
        spec = self._jobs.specs[title]
        if spec.unresolved:
            return None
        try:
            record = self._store.finished(spec, "never")
            path = self._store.path(spec)
            if record is None or self._jobs.replaces.get(title) == sha256(path.read_bytes()):
                return None
        except (RecordError, OSError):
            return None  # the run itself will say what is wrong with it
        if record.failure is None:
            return Attempt("done", path)
        return Attempt("failed", path, record.failure.message, TrainingFailed.exit_code)

    def _given_up(self, title: str) -> Attempt | None:
        """Return the outcome of a run that took down too many processes."""
        losses = self._told.losses(title)
        if losses < LOSSES:
            return None
        how = self._told.problem(title) or "its worker was lost"
        problem = f"{how} before the record was written, {losses} times"
        return Attempt("failed", problem=problem, exit_code=1)

"""`Crew`: hands runs to processes, wherever they are, and accounts for each run."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from debiasbench.common.errors import Interrupted, StoreError
from debiasbench.runs.sweep import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from debiasbench.common.signals import Stop

INTERRUPTED = {Interrupted.exit_code, Interrupted.NOTHING_STORED}
AGAIN = 5.0  # seconds before a run that a lost process may still train is handed out again
STARTS = 20  # processes that may be lost before they begin, one after the other


@dataclass(frozen=True)
class End:
    """How a process ended: its exit code, negative for a signal, and in words.

    `lost`: whether the reason lies outside of the process, such as a computer that failed; another
    process can then take its place even if this one had not begun.
    """

    code: int
    how: str  # such as "its process was killed by signal 9"
    lost: bool = False


class Hand(Protocol):
    """A process that does the runs that it is handed, and reports their outcomes."""

    def order(self, titles: Sequence[str] | None) -> None:
        """Hand runs to the process; None: there are no more."""

    def reports(self) -> list[Any]:
        """Return what it has reported since the last call: None when ready, title and outcome."""

    def ended(self) -> End | None:
        """Return how it ended, None if it runs; all its reports can then be read."""

    def stop(self) -> None:
        """Let it stop after the current step, with a checkpoint."""

    def kill(self) -> None:
        """End it at once."""

    def close(self) -> None:
        """Give back what this side holds of it."""


H = TypeVar("H", bound=Hand)


@dataclass
class _Hired(Generic[H]):
    hand: H
    left: list[str] = field(default_factory=list)  # runs that it has not reported
    ready: bool = False
    dismissed: bool = False  # it was told that there are no more runs


class Crew(Generic[H]):
    """The processes of a command.

    `hire`: starts a process; it receives the lowest number that no running process has. `wait`:
    waits shortly until one of the processes reports. `report`: receives the title and the outcome
    of each run, and returns whether to hand out more. `tries`: how often a run is handed out whose
    process was lost.

    `code`: of a process that did not even start, or that was stopped while this one was not; 0 if
    there is none.
    """

    def __init__(
        self,
        hire: Callable[[int], H],
        wait: Callable[[Sequence[H]], object],
        report: Callable[[str, Attempt], bool],
        stop: Stop,
        *,
        tries: int = 1,
    ) -> None:
        self._hire, self._wait, self._report, self._stop = hire, wait, report, stop
        self._tries = tries
        self._hired: dict[int, _Hired[H]] = {}
        self._left: deque[list[str]] = deque()
        self._lost: dict[str, int] = {}  # runs -> number of processes that were lost with them
        self._later: dict[str, float] = {}  # runs that are trained elsewhere -> when to try again
        self._unbegun = 0  # processes that were lost before they began, since one has begun
        self.code = 0

    def run(self, batches: Iterable[Sequence[str]], processes: int) -> None:
        """Let at most `processes` processes do all runs; return when all processes have ended.

        A batch is handed to one process.
        """
        self._left = deque(list(batch) for batch in batches)
        self._stop.at_once.append(self._kill)
        try:
            for _ in range(min(processes, len(self._left))):
                self._add()
            told = False
            while self._hired:
                if self._stop.requested and not told:
                    told = True
                    self._finish()
                    for hired in self._hired.values():
                        hired.hand.stop()
                self._listen()
        finally:
            self._stop.at_once.remove(self._kill)
            for hired in self._hired.values():  # after an error in this process
                hired.hand.close()

    def grow(self, processes: int) -> None:
        """Start more processes, at most one for each batch that is left."""
        for _ in range(min(processes, len(self._left))):
            self._add()

    def _add(self) -> None:
        number = next(k for k in range(len(self._hired) + 1) if k not in self._hired)
        self._hired[number] = _Hired(self._hire(number))

    def _finish(self) -> None:
        """Hand out no more runs."""
        self._left.clear()
        self._later.clear()

    def _listen(self) -> None:
        """Wait shortly for reports, answer them, and let go of processes that have ended."""
        self._wait([hired.hand for hired in self._hired.values()])
        for number, hired in list(self._hired.items()):
            end = hired.hand.ended()  # before the last reports are read
            for message in hired.hand.reports():
                self._answer(hired, message)
            if end is not None:
                del self._hired[number]
                hired.hand.close()
                self._bury(hired, end)
        self._hand_out()

    def _answer(self, hired: _Hired[H], message: Any) -> None:
        if message is None:
            hired.ready, self._unbegun = True, 0
            return
        title, outcome = message[0], Attempt.from_plain(message[1])
        hired.left.remove(title)
        if outcome.state == "elsewhere" and title in self._lost:
            # the process that was lost may have lost its connection only, and still train
            self._later[title] = time.monotonic() + AGAIN
            return
        if outcome.state == "done" and title in self._lost:
            outcome = replace(outcome, state="trained")  # by the process that was lost
        if not self._report(title, outcome):
            self._finish()

    def _hand_out(self) -> None:
        """Give runs to the processes that have none, or tell them that there are no more."""
        now = time.monotonic()
        for title in [title for title, due in self._later.items() if due <= now]:
            del self._later[title]
            self._left.append([title])
        for hired in self._hired.values():
            if hired.left or hired.dismissed:
                continue
            if hired.ready and self._left:
                hired.left = self._left.popleft()
                hired.hand.order(hired.left)
            elif not self._left and not self._later and not self._may_return():
                hired.dismissed = True
                if hired.ready:
                    hired.hand.order(None)
                else:  # it may wait for a place in which to begin, for ever
                    hired.hand.stop()

    def _may_return(self) -> bool:
        """Return whether runs that are handed out now may have to be handed out again."""
        return self._tries > 1 and any(hired.left for hired in self._hired.values())

    def _bury(self, hired: _Hired[H], end: End) -> None:
        """Account for a process that has ended, and replace it if it did not finish its runs."""
        self._stop.resumable |= end.code == Interrupted.exit_code
        if self._stop.requested or hired.dismissed:
            return
        self._unbegun += not hired.ready
        # otherwise, others would end in the same way
        lost = self._tries > 1 and (hired.ready or (end.lost and self._unbegun < STARTS))
        if (not hired.left or end.code in INTERRUPTED) and not lost:
            self.code = self.code or (end.code if end.code > 0 else 1)
            return
        going = end.code != StoreError.exit_code  # no other run could be stored either
        for title in hired.left:
            self._lost[title] = self._lost.get(title, 0) + 1
            if self._lost[title] < self._tries and going:
                self._left.appendleft([title])
                continue
            times = f", {self._lost[title]} times" if self._lost[title] > 1 else ""
            problem = f"{end.how} before the record was written{times}"
            failed = Attempt("failed", problem=problem, exit_code=max(end.code, 1))
            going = self._report(title, failed) and going
        if not going:
            self._finish()
        if self._left or (self._later and not self._hired):
            self._add()

    def _kill(self) -> None:
        for hired in self._hired.values():
            hired.hand.kill()

"""Several processes of one command: a parent hands out runs one at a time, and workers run them.

Each worker is connected to its parent by two pipes. Orders are titles of runs, one in a line of
JSON, and null after the last one. Reports are the outcomes, in the same order; the first line of a
worker says that it is ready. A worker whose orders end without null knows that its parent died.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import Interrupted, StoreError
from debiasbench.runs.sweep import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from debiasbench.common.signals import Stop

INTERRUPTED = {Interrupted.exit_code, Interrupted.NOTHING_STORED}
WAIT = 0.2  # seconds between two looks at signals and at ended processes

# with the modules of the parent: -c and -m alone would import from the working folder
START = """import sys
sys.path[:] = {path!r}
from debiasbench.cli import main
main(prog_name="debiasbench")
"""


class Worker:
    """The parent's side of a worker.

    `title`: of the run that the worker has not reported yet, or None. `ready`: whether it started.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        orders, self._orders = os.pipe()
        self._reports, reports = os.pipe()
        os.set_blocking(self._reports, False)
        self.title: str | None = None
        self.ready = False
        self._unread = b""
        path = [folder for folder in sys.path if isinstance(folder, str)]
        command = [*_interpreter(), "-c", START.format(path=path), *arguments[:1]]
        self.process = subprocess.Popen(
            [*command, "--worker", f"{orders},{reports}", *arguments[1:]],
            stdin=subprocess.DEVNULL,
            env=_environment(),
            pass_fds=(orders, reports),
            start_new_session=True,  # Ctrl-C in a terminal reaches the parent only, which passes on
        )
        os.close(orders)
        os.close(reports)

    def fileno(self) -> int:
        """Return the descriptor that is readable when the worker has reported."""
        return self._reports

    def order(self, title: str | None) -> None:
        """Hand a run to the worker; None: there are no more."""
        self.title = title
        with suppress(BrokenPipeError):  # it died, which the caller will find
            os.write(self._orders, f"{json.dumps(title)}\n".encode())

    def reports(self) -> list[Any]:
        """Return what the worker has reported since the last call."""
        with suppress(BlockingIOError):
            while chunk := os.read(self._reports, 1 << 16):
                self._unread += chunk
        *lines, self._unread = self._unread.split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close the pipes; a worker that still runs then stops."""
        os.close(self._orders)
        os.close(self._reports)


def _interpreter() -> list[str]:
    """Return the command of this interpreter, with the options that decide what it imports."""
    flags = {"-I": sys.flags.isolated, "-E": sys.flags.ignore_environment}
    flags |= {"-s": sys.flags.no_user_site, "-P": True}
    warnings = [f"-W{option}" for option in sys.warnoptions]
    return [sys.executable, *(flag for flag, is_set in flags.items() if is_set), *warnings]


def _environment() -> dict[str, str]:
    """Return the environment of workers.

    It leaves the number of threads as it is, because results depend on it. Processes that together
    have more threads than there are cores must not wait actively for each other.
    """
    return {"OMP_WAIT_POLICY": "passive", **os.environ}


class Crew:
    """The workers of a command.

    `arguments`: the command and its arguments. `report` receives the title and the outcome of each
    run, and returns whether to hand out more. `code`: of a worker that did not even start, or that
    was stopped while this process was not; 0 if there is none.
    """

    def __init__(
        self, arguments: Sequence[str], report: Callable[[str, Attempt], bool], stop: Stop
    ) -> None:
        self._arguments, self._report, self._stop = arguments, report, stop
        self._workers: list[Worker] = []
        self._left: deque[str] = deque()
        self.code = 0

    def run(self, titles: Iterable[str], jobs: int) -> None:
        """Let at most `jobs` workers run all titles; return when all workers have ended."""
        self._left = deque(titles)
        self._stop.at_once.append(self._kill)
        try:
            for _ in range(min(jobs, len(self._left))):
                self._workers.append(Worker(self._arguments))
            told = False
            while self._workers:
                if self._stop.requested and not told:
                    told = True
                    self._left.clear()
                    for worker in self._workers:
                        worker.process.terminate()
                self._listen()
        finally:
            self._stop.at_once.remove(self._kill)
            for worker in self._workers:  # after an error in this process
                worker.close()

    def _listen(self) -> None:
        """Wait shortly for reports, answer them, and let go of workers that have ended."""
        select.select(self._workers, [], [], WAIT)
        for worker in list(self._workers):
            ended = worker.process.poll() is not None  # before the last reports are read
            for message in worker.reports():
                self._answer(worker, message)
            if ended:
                self._workers.remove(worker)
                worker.close()
                self._bury(worker)

    def _answer(self, worker: Worker, message: Any) -> None:
        if message is None:
            worker.ready = True
        elif worker.title is not None and not self._report(worker.title, Attempt(**message)):
            self._left.clear()
        worker.order(self._left.popleft() if self._left else None)

    def _bury(self, worker: Worker) -> None:
        """Account for a worker that has ended, and replace it if it did not finish its run."""
        code = worker.process.returncode
        self._stop.resumable |= code == Interrupted.exit_code
        if self._stop.requested or (worker.ready and worker.title is None):
            return
        if worker.title is None or code in INTERRUPTED:
            self.code = self.code or (code if code > 0 else 1)
            return
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        problem = f"its process {how} before the record was written"
        lost = Attempt("failed", problem=problem, exit_code=code if code > 0 else 1)
        # after a results folder that cannot be written, no other run could be stored either
        if not self._report(worker.title, lost) or code == StoreError.exit_code:
            self._left.clear()
        if self._left:
            self._workers.append(Worker(self._arguments))

    def _kill(self) -> None:
        for worker in self._workers:
            worker.process.kill()


class Orders:
    """A worker's side: an iterator over the titles of the runs that the parent hands to it.

    `ends`: the descriptors for orders and reports, such as "3,4". `stop`: is requested when the
    parent dies.
    """

    def __init__(self, ends: str, stop: Stop) -> None:
        self._orders, self._reports = (int(end) for end in ends.split(","))
        for end in (self._orders, self._reports):
            os.set_inheritable(end, False)
        self._stop = stop
        self._received: SimpleQueue[str | None] = SimpleQueue()
        Thread(target=self._listen, name="debiasbench-orders", daemon=True).start()

    def __iter__(self) -> Iterator[str]:
        self._send(None)
        while (title := self._next()) is not None:
            yield title

    def report(self, attempt: Attempt) -> None:
        """Tell the parent the outcome of the current run."""
        self._send({"state": attempt.state, "exit_code": attempt.exit_code})

    def _send(self, message: object) -> None:
        with suppress(BrokenPipeError):  # the parent died, which `_listen` notices
            os.write(self._reports, f"{json.dumps(message)}\n".encode())

    def _next(self) -> str | None:
        while True:
            self._stop.check()
            with suppress(Empty):
                return self._received.get(timeout=WAIT)

    def _listen(self) -> None:
        unread = b""
        while chunk := os.read(self._orders, 1 << 16):
            *lines, unread = (unread + chunk).split(b"\n")
            for line in lines:
                title = json.loads(line)
                self._received.put(title)
                if title is None:
                    return
        self._stop.request()

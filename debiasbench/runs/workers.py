"""Worker processes on this machine: a parent hands out runs, and workers run them.

Each worker is connected to its parent by two pipes. Orders are lists of titles of runs, one list in
a line of JSON, and null after the last one. A report is the title and the outcome of a run; the
first line of a worker says that it is ready. A worker whose orders end without null knows that its
parent died.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from debiasbench.common.processes import interpreter
from debiasbench.runs.crew import End

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from debiasbench.common.signals import Stop
    from debiasbench.runs.sweep import Attempt

WAIT = 0.2  # seconds between two looks at signals and at ended processes

# with the modules of the parent: -c and -m alone would import from the working folder
START = """import sys
sys.path[:] = {path!r}
from debiasbench.cli import main
main(prog_name="debiasbench")
"""


class Worker:
    """The parent's side of a worker that does the jobs in a file; see `crew.Hand`.

    `environment`: added to that of this process. `output`: the descriptor of a file for what it
    prints, by default that of this process.
    """

    def __init__(
        self,
        jobs: Path,
        environment: Mapping[str, str] | None = None,
        output: int | None = None,
    ) -> None:
        orders, self._orders = os.pipe()
        self._reports, reports = os.pipe()
        os.set_blocking(self._reports, False)
        self._unread = b""
        path = [folder for folder in sys.path if isinstance(folder, str)]
        command = [*interpreter(), "-c", START.format(path=path), "work"]
        self.process = subprocess.Popen(
            [*command, "--pipes", f"{orders},{reports}", "--", str(jobs)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**_environment(), **(environment or {})},
            pass_fds=(orders, reports),
            start_new_session=True,  # Ctrl-C in a terminal reaches the parent only, which passes on
        )
        os.close(orders)
        os.close(reports)

    def fileno(self) -> int:
        """Return the descriptor that is readable when the worker has reported."""
        return self._reports

    def order(self, titles: Sequence[str] | None) -> None:
        """Hand runs to the worker; None: there are no more."""
        with suppress(BrokenPipeError):  # it died, which the caller will find
            os.write(self._orders, f"{json.dumps(titles)}\n".encode())

    def reports(self) -> list[Any]:
        """Return what the worker has reported since the last call."""
        with suppress(BlockingIOError):
            while chunk := os.read(self._reports, 1 << 16):
                self._unread += chunk
        *lines, self._unread = self._unread.split(b"\n")
        return [json.loads(line) for line in lines]

    def ended(self) -> End | None:
        """Return how the process ended, None if it runs."""
        code = self.process.poll()
        if code is None:
            return None
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return End(code, f"its process {how}")

    def stop(self) -> None:
        """Let the worker stop after the current step, with a checkpoint."""
        self.process.terminate()

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()

    def close(self) -> None:
        """Close the pipes; a worker that still runs then stops."""
        os.close(self._orders)
        os.close(self._reports)


def hiring(jobs: Path, device: str, processes: int) -> Callable[[int], Worker]:
    """Return what starts the worker with a number; of several, each has one of several GPUs."""
    own: list[dict[str, str]] = []
    if processes > 1 and device != "cpu":
        from debiasbench.training.device import environments

        own = environments(device)
    return lambda number: Worker(jobs, own[number % len(own)] if own else None)


def wait_for(workers: Sequence[Worker]) -> None:
    """Wait shortly until one of the workers reports."""
    select.select(workers, [], [], WAIT)


def _environment() -> dict[str, str]:
    """Return the environment of workers.

    It leaves the number of threads as it is, because results depend on it. Processes that together
    have more threads than there are cores must not wait actively for each other.
    """
    return {"OMP_WAIT_POLICY": "passive", **os.environ}


class Orders:
    """A worker's side: an iterator over the lists of titles that the parent hands to it.

    `ends`: the descriptors for orders and reports, such as "3,4". `stop`: is requested when the
    parent dies.
    """

    def __init__(self, ends: str, stop: Stop) -> None:
        self._orders, self._reports = (int(end) for end in ends.split(","))
        for end in (self._orders, self._reports):
            os.set_inheritable(end, False)
        self._stop = stop
        self._received: SimpleQueue[list[str] | None] = SimpleQueue()
        Thread(target=self._listen, name="debiasbench-orders", daemon=True).start()

    def __iter__(self) -> Iterator[list[str]]:
        self._send(None)
        while (titles := self._next()) is not None:
            yield titles

    def report(self, title: str, attempt: Attempt) -> None:
        """Tell the parent the outcome of a run."""
        self._send([title, attempt.as_plain()])

    def _send(self, message: object) -> None:
        with suppress(BrokenPipeError):  # the parent died, which `_listen` notices
            os.write(self._reports, f"{json.dumps(message)}\n".encode())

    def _next(self) -> list[str] | None:
        while True:
            self._stop.check()
            with suppress(Empty):
                return self._received.get(timeout=WAIT)

    def _listen(self) -> None:
        unread = b""
        while chunk := os.read(self._orders, 1 << 16):
            *lines, unread = (unread + chunk).split(b"\n")
            for line in lines:
                titles = json.loads(line)
                self._received.put(titles)
                if titles is None:
                    return
        self._stop.request()

"""`Slot`: a place for one process on a node of a Ray cluster; it imports neither Ray nor torch."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from select import select
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from debiasbench.runs.carried import packed
from debiasbench.runs.fetched import Fetching, put
from debiasbench.runs.jobs import jobs_of
from debiasbench.runs.scratch import Scratch
from debiasbench.runs.workers import Worker
from debiasbench.specs.plugins import version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debiasbench.runs.crew import End
    from debiasbench.runs.session_options import SessionOptions

STEP = 0.2  # seconds between two looks at an ended process
SILENCE = 120.0  # seconds without the driver; Ray declares a hung node dead after about 65
MOST_OUTPUT = 1 << 14  # bytes of output that are sent at once


@dataclass(frozen=True)
class Start:
    """What a process on a node needs beside its jobs.

    `version`: of the driver. `token`: name and content of a file in the results folder, by which a
    node sees that it shares this folder. `key`: names the scratch folder on nodes that do not.
    `environment`: added to that of the process. `fetch`: seconds between two looks at checkpoints
    of a node that does not share the folder; 0 for none.
    """

    version: str
    token: str
    key: str
    environment: dict[str, str]
    fetch: float = 0.0


@dataclass(frozen=True)
class Begun:
    """Where a process has begun, and whether it shares the results folder."""

    node: str
    shared: bool


@dataclass(frozen=True)
class Sent:
    """Something that a process tells its driver; several fields are empty.

    `report`: as of a `Hand`, in a list. `record`: the files of the record of the reported run, on
    a node that does not share the results folder. `stages`: files of unfinished stages of the runs
    `titles`. `said`: what the process printed.
    """

    report: tuple[Any, ...] = ()
    record: dict[str, bytes] | None = None
    titles: tuple[str, ...] = ()
    stages: dict[str, tuple[float, bytes]] | None = None
    said: str = ""


class Slot:
    """A process on a node and the driver's calls to it, several of which run at the same time.

    Calls can be repeated: orders and what is sent have numbers.
    """

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._lock = Lock()
        self._sent: list[Sent] = []  # those that the driver has not confirmed
        self._first = 0  # number of the first of them
        self._orders = 0  # number of orders that were received
        self._titles: tuple[str, ...] = ()  # of the last order
        self._end: End | None = None
        self._heard = time.monotonic()
        self._reading = 0  # position in the output
        self._scratch: Scratch | None = None
        self._fetching: Fetching | None = None

    def begin(self, jobs: str, start: Start) -> Begun | str:
        """Start the process; return why this is impossible if it is."""
        node = socket.gethostname()
        own_version = version("debiasbench")
        if own_version != start.version:
            return (
                f"{node} has debiasbench {own_version}, and this is {start.version}: install the "
                "same version on all nodes"
            )
        own = jobs_of(json.loads(jobs), "The jobs from the driver")
        session = own.session
        shared = _has(session.results, start.token)
        if not shared:
            self._scratch = Scratch(start.key)
            session = replace(session, results=self._scratch.folder)
            if start.fetch:
                self._fetching = Fetching(self._scratch.folder, start.fetch)
        if not session.data_root.is_dir() and (root := os.environ.get("DEBIASBENCH_DATA")):
            session = replace(session, data_root=Path(root))
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this process
        with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
            file.write(replace(own, session=session).to_json())
        self._jobs = Path(file.name)
        self._worker = Worker(self._jobs, start.environment, self._output.fileno())
        Thread(target=self._listen_for_driver, name="debiasbench-driver", daemon=True).start()
        return Begun(node, shared)

    def order(
        self,
        number: int,
        titles: list[str] | None,
        stages: Mapping[str, tuple[float, bytes]] | None = None,
    ) -> None:
        """Hand runs to the process, with stages that they have on other nodes; see `Hand.order`."""
        with self._lock:
            if number < self._orders or self._worker is None or self._end is not None:
                return  # a repetition, or too late
            self._orders = number + 1
            self._titles = tuple(titles or ())
            if self._fetching is not None:
                self._fetching.forget()
            if self._scratch is not None and stages:
                put(self._scratch.folder, stages)
            self._worker.order(titles)

    def reports(self, seen: int, wait: float) -> tuple[int, list[Sent], End | None]:
        """Return what was sent from number `seen` on, its first number, and how the process ended.

        Waits at most `wait` seconds for something. Numbers below `seen` are confirmed.
        """
        until = time.monotonic() + wait
        with self._lock:
            self._sent = self._sent[max(0, seen - self._first) :]
            self._first = max(self._first, seen)
        while True:
            with self._lock:
                self._heard = time.monotonic()
                self._read()
                if self._sent or self._end is not None or time.monotonic() >= until:
                    return self._first, list(self._sent), self._end
            self._pause()

    def stop(self) -> None:
        """Let the process stop after the current step, with a checkpoint."""
        if self._worker is not None and self._end is None:
            self._worker.stop()

    def _pause(self) -> None:
        assert self._worker is not None
        began = time.monotonic()
        readable, _, _ = select([self._worker], [], [], STEP)
        if readable and time.monotonic() - began < 0.001 and self._worker.ended() is None:
            time.sleep(0.001)  # an ending process has closed its pipe, which stays readable

    def _read(self) -> None:
        """Collect what the process reported and printed, and what it left when it ended."""
        worker = self._worker
        if worker is None or self._end is not None:
            return
        end = worker.ended()  # before the last reports are read
        for report in worker.reports():
            record = None
            if self._scratch is not None and report is not None and report[1].get("path"):
                path = Path(report[1]["path"])
                record = packed(path)
                self._scratch.forget(path)
            self._sent.append(Sent((report,), record))
            if report is not None:
                self._titles = tuple(title for title in self._titles if title != report[0])
        # the stages of a run that was reported are of no use any more
        if (
            self._fetching is not None
            and self._titles
            and (files := self._fetching.due(worker.process.pid, finally_=end is not None))
        ):
            self._sent.append(Sent(titles=self._titles, stages=files))
        while said := self._printed():
            self._sent.append(Sent(said=said))
            if end is None:
                break
        if end is not None:
            self._end = end
            self._output.close()
            self._jobs.unlink(missing_ok=True)
            worker.close()
            if self._scratch is not None:
                self._scratch.leave(empty=end.code == 0)

    def _printed(self) -> str:
        said = os.pread(self._output.fileno(), MOST_OUTPUT, self._reading)
        self._reading += len(said)
        return said.decode(errors="replace")

    def _listen_for_driver(self) -> None:
        """End when the driver is silent: Ray took this node for dead, and the runs are elsewhere.

        Where the results folder is shared, the current runs are finished: their claims keep others
        from training them.
        """
        while self._end is None:
            time.sleep(STEP * 10)
            if time.monotonic() - self._heard > SILENCE:
                if self._scratch is None:
                    self.order(self._orders, None)
                else:
                    self.stop()
                return


def _has(folder: Path, token: str) -> bool:
    """Say whether a folder is that of the driver, and can be written."""
    try:
        return (folder / token).read_text() == token and os.access(folder, os.W_OK)
    except OSError:
        return False


def precision_of(session: SessionOptions) -> str:
    """Return the precision that "auto" means on a node; in a process that may import torch."""
    return session.precision()

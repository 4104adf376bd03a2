"""`Trackers`: the trackers that listen to the runs of a session, each in a process of its own."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import time
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import PluginError
from debiasbench.common.foreign import contained, explained, is_interrupt
from debiasbench.common.processes import interpreter
from debiasbench.common.wording import printable
from debiasbench.runs.tracking.told import Told, following

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from debiasbench.core.tracker import Tracker
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.registry import Entry
    from debiasbench.specs.spec import Spec

PATIENCE = 30.0  # seconds that a tracker has to finish after the last run
ANNOUNCE = 2.0  # seconds after which the wait is announced

# with the modules of this process: -c alone would import from the working folder
START = """import sys
sys.path[:] = {path!r}
from debiasbench.runs.tracking.process import main
main({target!r}, {owner!r})
"""


class Trackers:
    """The trackers that plugins register and that want to listen; they start with the first run.

    `plugins`: None in a process that must not tell, because another one does.

    Whatever they do, the runs do not notice it: they get copies of plain data through a pipe that
    a thread of its own fills.
    """

    def __init__(self, plugins: Plugins | None) -> None:
        self._plugins = plugins
        self._listeners: list[Listener] | None = None  # None before the first run

    def follow(self, spec: Spec, file: Path) -> AbstractContextManager[Told]:
        """Tell trackers of a run whose record will be `file`; see `following`."""
        if self._listeners is None:
            wanting = () if self._plugins is None else _wanting(self._plugins)
            self._listeners = [Listener(entry) for entry in wanting]
            if self._listeners:
                atexit.register(self.close)  # sessions need not be closed
        return following(self._tell if self._listeners else None, spec, file)

    def _tell(self, event: str, arguments: Mapping[str, Any]) -> None:
        line = f"{json.dumps([event, arguments])}\n".encode()
        for listener in self._listeners or ():
            listener.tell(line)

    def close(self) -> None:
        """Let the trackers finish; one that does not is ended after `PATIENCE` seconds."""
        listeners, self._listeners = self._listeners or [], None
        for listener in listeners:
            listener.end()
        limit = time.monotonic() + PATIENCE
        for listener in listeners:
            listener.wait(limit)
        if listeners:
            atexit.unregister(self.close)


def _wanting(plugins: Plugins) -> list[Entry[Tracker]]:
    """Return the trackers that want to listen; report those that cannot say so."""
    found = []
    for name in plugins.trackers:
        entry = plugins.trackers[name]
        try:
            with contained(str(entry), _say):
                wanted = entry.load().wanted()
        except BaseException as error:  # code of others may raise anything, also SystemExit
            if is_interrupt(error):
                raise
            reason = str(error) if isinstance(error, PluginError) else explained(error)
            _say(f"{entry} does not listen: {' '.join(reason.split())}")
            continue
        found += [entry] if wanted else []
    return found


class Listener:
    """A tracker in a process of its own."""

    def __init__(self, entry: Entry[Tracker]) -> None:
        self._owner, self._silent = str(entry), False
        cls = entry.load()
        target = f"{cls.__module__}:{cls.__qualname__}"
        path = [folder for folder in sys.path if isinstance(folder, str)]
        code = START.format(path=path, target=target, owner=self._owner)
        self._process = subprocess.Popen(
            [*interpreter(), "-c", code],
            stdin=subprocess.PIPE,
            stdout=sys.__stderr__ if _has_file(sys.__stderr__) else subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for this process, which tells what it means
            bufsize=0,
        )
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread = Thread(target=self._feed, name="debiasbench-tracker", daemon=True)
        self._thread.start()

    def tell(self, line: bytes) -> None:
        """Tell an event, without waiting."""
        self._lines.put(line)

    def end(self) -> None:
        """Tell that there are no more events."""
        self._lines.put(None)

    def wait(self, limit: float) -> None:
        """Wait until the process has ended, at most until a time of the monotonic clock."""
        if not self._ends(min(limit, time.monotonic() + ANNOUNCE)):
            left = limit - time.monotonic()
            _say(f"Waiting for {self._owner} to finish, at most {max(left, 0):.0f} s")
            if not self._ends(limit):
                self._process.kill()
                _say(f"{self._owner} did not finish in {PATIENCE:.0f} s, so its process was ended")
                self._silent = True
        self._thread.join()
        self._bury()

    def _ends(self, limit: float) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(limit - time.monotonic(), 0))
            return True
        return False

    def _feed(self) -> None:
        """Write events into the pipe, however slowly the tracker reads them."""
        pipe = self._process.stdin
        assert pipe is not None
        with suppress(OSError), pipe:
            while (line := self._lines.get()) is not None:
                left = memoryview(line)
                while left:
                    left = left[pipe.write(left) :]
            return
        self._bury()  # nobody reads

    def _bury(self) -> None:
        """Report once that the process ended by an error."""
        code = self._process.wait()
        if code and not self._silent:
            self._silent = True
            _say(f"{self._owner} ended with exit code {code}, and heard no more of the runs")


def _has_file(stream: Any) -> bool:
    try:
        return stream is not None and stream.fileno() >= 0
    except (OSError, ValueError):
        return False


def _say(message: str) -> None:
    print(printable(f"Warning: {message}"), file=sys.stderr, flush=True)

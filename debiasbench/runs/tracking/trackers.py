"""`Trackers`: the trackers that listen to the runs of a session, each in a process of its own."""

from __future__ import annotations

import atexit
import json
import os
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
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from debiasbench.core.tracker import Tracker
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.registry import Entry
    from debiasbench.specs.spec import Spec

PATIENCE = 60.0  # seconds that a tracker has for an event, when the last run is over
ANNOUNCE = 3.0  # seconds after which the wait is announced
POLL = 0.1  # seconds between two looks at a tracker

# with the modules of this process: -c alone would import from the working folder
START = """import sys
sys.path[:] = {path!r}
from debiasbench.runs.tracking.process import main
main({target!r}, {owner!r}, {pulse})
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

    def follow(self, spec: Spec, file: Callable[[Spec], Path]) -> AbstractContextManager[Told]:
        """Tell trackers of a run, whose record will be `file(spec)`; see `following`."""
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
        """Let the trackers finish, as long as they handle events."""
        listeners, self._listeners = self._listeners or [], None
        for listener in listeners:
            listener.end()
        for listener in listeners:
            listener.wait()
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
        self._pulse, pulse = os.pipe()
        for end in (self._pulse, pulse):
            os.set_blocking(end, False)
        code = START.format(path=path, target=target, owner=self._owner, pulse=pulse)
        self._process = subprocess.Popen(
            [*interpreter(), "-c", code],
            stdin=subprocess.PIPE,
            stdout=sys.__stderr__ if _has_file(sys.__stderr__) else subprocess.DEVNULL,
            pass_fds=(pulse,),
            start_new_session=True,  # a Ctrl-C is for this process, which tells what it means
            bufsize=0,
        )
        os.close(pulse)
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread = Thread(target=self._feed, name="debiasbench-tracker", daemon=True)
        self._thread.start()

    def tell(self, line: bytes) -> None:
        """Tell an event, without waiting."""
        self._lines.put(line)

    def end(self) -> None:
        """Tell that there are no more events."""
        self._lines.put(None)

    def wait(self) -> None:
        """Wait until the process has ended; end it if it handles no event for too long."""
        begun = alive = time.monotonic()
        announced = False
        while not self._ends(POLL):
            now = time.monotonic()
            alive = now if self._beats() else alive
            if not announced and now - begun > ANNOUNCE:
                announced = True
                _say(f"Waiting for {self._owner} to finish")
            if now - alive > PATIENCE:
                self._silent = True
                self._process.kill()
                _say(
                    f"{self._owner} did nothing for {PATIENCE:.0f} s, so its process was ended, "
                    "and it heard no more of the runs"
                )
        self._thread.join()
        self._bury()
        os.close(self._pulse)

    def _ends(self, seconds: float) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
            return True
        return False

    def _beats(self) -> bool:
        """Return whether the tracker has handled an event since the last call."""
        with suppress(BlockingIOError):
            return bool(os.read(self._pulse, 1 << 16))
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

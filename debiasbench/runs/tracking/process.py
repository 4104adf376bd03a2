"""The process of a tracker: it reads events from stdin, one in a line of JSON, and calls methods.

Nothing here imports torch, so the process starts quickly and leaves devices alone.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from debiasbench.common.foreign import explained
from debiasbench.common.wording import printable, shortened
from debiasbench.core.tracker import TrackedRun

if TYPE_CHECKING:
    from collections.abc import Iterable

ENDS = {"run_ended", "run_failed", "run_interrupted"}


def main(target: str, owner: str, pulse: int) -> None:
    """Let the tracker "module:Class" listen until stdin ends; `owner` names it in messages.

    `pulse`: a pipe that gets a byte after each event.
    """
    os.set_inheritable(pulse, False)
    events = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = sys.stderr
    Telling(target, owner, pulse).all(events)


class Telling:
    """Calls the methods of a tracker; reports the first error, and goes on after each."""

    def __init__(self, target: str, owner: str, pulse: int) -> None:
        self._owner, self._pulse = owner, pulse
        self._module, _, self._name = target.partition(":")
        self._runs: dict[str, TrackedRun] = {}  # by attempt, those that have not ended
        self._reported = False
        self._tracker: Any = None
        self._call(self._make)

    def _make(self) -> None:
        made: Any = importlib.import_module(self._module)
        for part in self._name.split("."):
            made = getattr(made, part)
        self._tracker = made()

    def all(self, lines: Iterable[bytes]) -> None:
        """Tell all events; runs that have not ended by then were interrupted."""
        for line in lines:
            if not line.endswith(b"\n"):
                break  # the process that trained died while it wrote
            event, arguments = json.loads(line)
            self._tell(event, arguments)
            with suppress(OSError):  # nobody reads while runs are trained, and it may be full
                os.write(self._pulse, b".")
        for attempt in list(self._runs):
            self._tell("run_interrupted", {"run": attempt})
        if self._tracker is not None:
            self._call(self._tracker.close)

    def _tell(self, event: str, arguments: dict[str, Any]) -> None:
        run = arguments.pop("run")
        if event == "run_started":
            run = TrackedRun(**run)
            self._runs[run.attempt] = run
        else:
            run = self._runs[run]
        if event in ENDS:
            del self._runs[run.attempt]
        if self._tracker is not None:
            self._call(getattr(self._tracker, event), run, **arguments)

    def _call(self, function: Any, *arguments: Any, **named: Any) -> None:
        try:
            function(*arguments, **named)
        except BaseException as error:  # code of others may raise anything, also SystemExit
            if not self._reported:
                self._reported = True
                text = f"{self._owner} raised {explained(error, self._module)}"
                print(printable(f"Warning: {shortened(text, 500)}"), file=sys.stderr, flush=True)

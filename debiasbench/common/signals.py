"""A request to stop: a signal only sets a flag, and code checks the flag where it can stop safely.

An exception at the moment of a signal could break an import of a library, or be taken for an error
of the code that it interrupts.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from debiasbench.common.errors import Interrupted, StoreError
from debiasbench.common.processes import speaks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # the last is for Slurm
ONE_PRESS = 1.0  # seconds; launchers repeat a Ctrl-C that the terminal has sent already


class Stop:
    """Whether this process was asked to stop.

    `requested`: set by `request`, never reset. `resumable`: whether a checkpoint, a stage or a
    record is stored from which the same command continues. `at_once`: functions to call before the
    process ends without waiting for the current step.
    """

    def __init__(self) -> None:
        self.requested = False
        self.resumable = False
        self.at_once: list[Callable[[], None]] = []
        self._held = 0  # number of contexts

    def request(self) -> None:
        """Request a stop."""
        self.requested = True

    def check(self, where: str = "") -> None:
        """Raise `Interrupted` if a stop was requested, except inside `held`.

        `where` follows "Interrupted" in the message.
        """
        if self.requested and self._held == 0:
            raise Interrupted(where, resumable=self.resumable)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside the context, let `check` pass; the code inside looks at `requested` itself."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Raise `Interrupted` for an error inside the context that follows a request.

        A signal to a group of processes also ends processes that a library started, and the library
        then raises an error.
        """
        try:
            yield
        except (Interrupted, StoreError):
            raise
        except Exception as error:
            if self.requested:
                raise Interrupted(resumable=self.resumable) from error
            raise


_active: list[Stop] = []  # what the signals of this process set; signals have one handler


def check() -> None:
    """Raise `Interrupted` if a signal asked this process to stop; for code that waits."""
    for stop in _active:
        stop.check()


@contextmanager
def stopped_by_signals(*, ending: bool = False) -> Iterator[Stop]:
    """Let signals request a stop inside the context; yield the request.

    A second SIGINT does not wait for the current step: it has its original effect, or ends the
    process if `ending`. Inside another such context, yields the request of that one. Only the main
    thread of a program can use this.
    """
    if _active:
        yield _active[0]
        return
    stop = Stop()
    handler = _Handler(stop, ending=ending)
    _active.append(stop)
    handler.install()
    try:
        yield stop
    finally:
        handler.restore()
        _active.remove(stop)


class _Handler:
    """Sets the request of a `Stop`; ends the process at the second SIGINT."""

    def __init__(self, stop: Stop, *, ending: bool) -> None:
        self._stop, self._ending = stop, ending
        self._pressed: float | None = None  # time of the first SIGINT
        self._process = os.getpid()
        self._original = {number: signal.getsignal(number) for number in SIGNALS}

    def install(self) -> None:
        for number in self._original:
            signal.signal(number, self)

    def restore(self) -> None:
        for number, original in self._original.items():
            # None: it was set outside Python
            signal.signal(number, signal.SIG_DFL if original is None else original)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a fork, such as a process of a DataLoader
            if number != signal.SIGINT:  # Ctrl-C reaches the parent too, which ends its forks
                self.restore()
                os.kill(os.getpid(), number)
            return
        self._stop.request()
        if number != signal.SIGINT:
            return
        now = time.monotonic()
        if self._pressed is None:
            self._pressed = now
            _say("Interrupted: stopping after the current step. Press Ctrl-C again to stop at once")
        elif now - self._pressed >= ONE_PRESS:
            self._end(frame)

    def _end(self, frame: FrameType | None) -> None:
        _say("Interrupted again: stopping at once")
        for function in self._stop.at_once:
            function()
        self.restore()
        original = signal.getsignal(signal.SIGINT)
        if callable(original) and not self._ending:
            original(signal.SIGINT, frame)
            return
        # an exception could be caught where it is raised
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


def _say(message: str) -> None:
    """Write a line to stderr without Python's buffers, which the signal may have interrupted."""
    if speaks():
        shown = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar hides the cursor
        with suppress(OSError):
            os.write(2, f"{shown}{message}\n".encode())

"""A request to stop, which a signal makes and training follows between two steps."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from debiasbench.common.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # the last is for Slurm


class Stop:
    """Whether a stop was requested.

    Inside `postponed`, `request` only sets `requested`, which the code inside must check. Elsewhere
    it raises `Interrupted` at once. `resumable`: whether the same command can continue the work.
    """

    def __init__(self, *, resumable: bool = False) -> None:
        self.requested = False
        self.resumable = resumable
        self._postponed = False

    def request(self) -> None:
        """Request a stop."""
        if not self._postponed:
            raise Interrupted(resumable=self.resumable)
        self.requested = True

    @contextmanager
    def postponed(self) -> Iterator[None]:
        """Inside the context, let `request` set `requested` instead of raising."""
        self._postponed = True
        try:
            yield
        finally:
            self._postponed = False


@contextmanager
def stopped_by_signals(stop: Stop) -> Iterator[None]:
    """Let the first signal request a stop; a second signal has its original effect.

    Only the main thread of a program can use this.
    """
    original = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, _frame: object) -> None:
        signal.signal(number, original[signal.Signals(number)])
        stop.request()

    for number in original:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in original.items():
            signal.signal(number, handler)

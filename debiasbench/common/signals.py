"""A request to stop, made by a signal and honoured between two training steps."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from debiasbench.common.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # the last is for Slurm


class Stop:
    """Whether somebody asked to stop.

    Inside `postponed`, a request is noted for whoever looks at `requested`. Elsewhere `request`
    raises `Interrupted` at once. `resumable`: whether the same command would continue.
    """

    def __init__(self, *, resumable: bool = False) -> None:
        self.requested = False
        self.resumable = resumable
        self._postponed = False

    def request(self) -> None:
        """Ask to stop."""
        if not self._postponed:
            raise Interrupted(resumable=self.resumable)
        self.requested = True

    @contextmanager
    def postponed(self) -> Iterator[None]:
        """Note requests instead of raising."""
        self._postponed = True
        try:
            yield
        finally:
            self._postponed = False


@contextmanager
def stopped_by_signals(stop: Stop) -> Iterator[None]:
    """Let the first signal request a stop; a second one acts as it did before.

    For a program's main thread.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, _frame: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        stop.request()

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

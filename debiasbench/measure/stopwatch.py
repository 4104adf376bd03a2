"""Clocks that wait for the device: the current time, and the time of the steps of a stage."""

from __future__ import annotations

import time

import torch

from debiasbench.common.progress import Progress

WARM_UP = 3  # steps before the clock starts, in which kernels are selected and memory allocated


def now() -> float:
    """Return the time in seconds, after waiting until the device has finished its work."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


class Stopwatch(Progress):
    """A `Progress` that times the steps of a stage after the warm-up.

    `watcher`: another `Progress` to report to. `seconds`: the time of all timed steps of the last
    stage that finished.
    """

    def __init__(self, watcher: Progress | None = None) -> None:
        self._watcher = watcher or Progress()
        self.seconds = 0.0
        self._done = self._first = self._last = 0
        self._begun = 0.0

    def start(self, name: str, total: int | None) -> None:
        """Begin a stage of `total` steps."""
        assert total is not None
        self._done, self._last = 0, total
        self._first = min(WARM_UP, total - 1)
        self._watcher.start(name, total)
        self._begun = now()

    def advance(self, count: int = 1) -> None:
        """Count one finished step."""
        assert count == 1
        self._done += 1
        self._watcher.advance()
        if self._done == self._first:
            self._begun = now()
        if self._done == self._last:
            self.seconds = now() - self._begun

    def finish(self) -> None:
        """End the stage."""
        self._watcher.finish()

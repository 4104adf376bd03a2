"""Clocks that wait for the device: of a moment, and of the steps of a stage."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from debiasbench.common.progress import Silent

if TYPE_CHECKING:
    from debiasbench.common.progress import Progress

WARM_UP = 3  # steps before the clock starts: kernels are chosen, memory is allocated


def now() -> float:
    """Return seconds by a clock that waits until the device has finished its work."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


class Stopwatch:
    """Times the steps of a stage that follow the warm-up; a `Progress` that reports to another.

    `seconds`: of all timed steps of the last stage that finished.
    """

    def __init__(self, watcher: Progress | None = None) -> None:
        self._watcher: Progress = watcher or Silent()
        self.seconds = 0.0
        self._done = self._first = self._last = 0
        self._begun = 0.0

    def start(self, stage: str, steps: int) -> None:
        """A stage of `steps` steps begins."""
        self._done, self._last = 0, steps
        self._first = min(WARM_UP, steps - 1)
        self._watcher.start(stage, steps)
        self._begun = now()

    def advance(self) -> None:
        """A step is done."""
        self._done += 1
        self._watcher.advance()
        if self._done == self._first:
            self._begun = now()
        if self._done == self._last:
            self.seconds = now() - self._begun

    def finish(self) -> None:
        """The stage is over."""
        self._watcher.finish()

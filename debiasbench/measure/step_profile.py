"""Profile a training step: the time of data, forward, backward, optimizer and sparsity."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from debiasbench.core.modes import train_mode
from debiasbench.measure.stopwatch import WARM_UP, now
from debiasbench.training.stage_run import StageRun

if TYPE_CHECKING:
    from debiasbench.core.stage import Stage
    from debiasbench.training.execution import Execution

PARTS = ("data", "forward", "backward", "optimizer", "sparsity")


def step_profile(
    stage: Stage, execution: Execution, steps: int
) -> tuple[dict[str, list[float]], float]:
    """Take `steps` steps of a copy of a stage, and wait for the device after each part.

    Returns the seconds of each part, and of the whole step as "step", for each step; and the FLOPs
    of the objective's forward pass on a batch.
    """
    copied = replace(stage.copied(), steps=WARM_UP + steps, select=False)
    numerics = execution.numerics(stage.settings.precision)
    numerics.lay_out(copied.objective)
    train_mode(copied.objective)
    watch = _Watch()
    run = StageRun(copied, execution, numerics, observe=watch.take)
    with numerics.applied(), run.started():
        watch.begin()
        for step in run.steps():
            watch.end()
            if step < copied.steps:
                watch.begin()
    return {
        part: seconds[WARM_UP:] for part, seconds in watch.seconds.items()
    }, run.step.flops.total


class _Watch:
    """Adds the time since its last call to one of the parts of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {part: [] for part in (*PARTS, "step")}
        self._begun = self._last = 0.0

    def begin(self) -> None:
        """Begin a step."""
        for part in PARTS:
            self.seconds[part].append(0.0)
        self._begun = self._last = now()

    def take(self, part: str) -> None:
        """Add the time since the last call to `part`."""
        time = now()
        self.seconds[part][-1] += time - self._last
        self._last = time

    def end(self) -> None:
        """End the step at the end of its last part."""
        self.seconds["step"].append(self._last - self._begun)

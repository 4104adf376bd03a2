"""Trainers for measurements: one only takes the first steps of stages, one trains nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from debiasbench.common.progress import Progress
from debiasbench.core.modes import train_mode
from debiasbench.core.stage import Trained
from debiasbench.measure.stopwatch import WARM_UP, now
from debiasbench.records.selection import RULES
from debiasbench.training.stage_run import StageRun
from debiasbench.training.trainer import check_stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.common.progress import Progress
    from debiasbench.core.stage import Stage
    from debiasbench.training.execution import Execution
    from debiasbench.training.predict import Predictor

STEPS = 20  # steps that are timed


@dataclass(frozen=True)
class StageTime:
    """The time of one stage of a method."""

    name: str
    steps: int  # of the whole stage
    looks: int  # evaluations on the validation split, in the whole stage
    step: float  # seconds of one step
    look: float  # seconds of one evaluation

    @property
    def seconds(self) -> float:
        """Seconds of the whole stage."""
        return self.steps * self.step + self.looks * self.look


class Rehearsal:
    """A trainer that only takes the first steps of each stage, and times them.

    `times`: of each stage so far. `seconds`: total time in stages. `kept`: the largest number of
    bytes that the weights of all selection rules would take.
    """

    def __init__(
        self, execution: Execution, predictor: Predictor, progress: Progress | None = None
    ) -> None:
        self._execution, self._predictor = execution, predictor
        self._progress = progress or Progress()
        self.times: list[StageTime] = []
        self.seconds = 0.0
        self.kept = 0

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        """Take the first steps of each stage; return the results after these steps."""
        return [self._rehearse(stage) for stage in stages]

    def _rehearse(self, stage: Stage) -> Trained:
        begun = now()
        check_stage(stage, self._execution)
        numerics = self._execution.numerics(stage.settings.precision)
        numerics.lay_out(stage.objective.to(self._execution.device))
        train_mode(stage.objective)
        with numerics.applied():
            step, trained = self._timed(stage)
        assert stage.validation is not None
        epoch = len(stage.batches)
        looks = math.ceil(stage.steps / epoch) if stage.follows else 0
        for _ in range(2):  # the first one is a warm-up
            started = now()
            self._predictor.predict(stage.objective, stage.validation.view)
        self.times.append(StageTime(stage.name, stage.steps, looks, step, now() - started))
        if stage.select:
            state = stage.objective.state_dict().values()
            self.kept = max(self.kept, len(RULES) * sum(value.nbytes for value in state))
        self.seconds += now() - begun
        return trained

    def _timed(self, stage: Stage) -> tuple[float, Trained]:
        """Return the seconds of a step, and the result after the steps."""
        first = min(WARM_UP, stage.steps - 1)
        last = min(stage.steps, first + STEPS)
        parts = stage.settings.micro_batch
        run = StageRun(
            stage,
            self._execution,
            self._execution.numerics(stage.settings.precision),
            micro_batch=parts if isinstance(parts, int) else None,
        )
        self._progress.start(stage.name, last)
        try:
            with run.started():
                begun = now()
                for step in islice(run.steps(), last):
                    self._progress.advance()
                    if step == first:
                        begun = now()
                seconds = now() - begun
                masks = {n: m for c in stage.components for n, m in c.masks().items()}
                densities = {n: d for c in stage.components for n, d in c.densities().items()}
        finally:
            self._progress.finish()
        trained = Trained(stage.objective, densities=densities, masks=masks)
        return seconds / (last - first), trained


class Listening:
    """A trainer that collects the stages of a method, and trains none."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        """Return the objectives untrained; keep copies, since a method may change them later."""
        self.stages += [stage.copied() for stage in stages]
        return [Trained(stage.objective) for stage in stages]

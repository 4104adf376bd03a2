"""`Rehearsal`: a trainer that only takes the first steps of each stage, and times them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from debiasbench.common.progress import Progress
from debiasbench.common.randomness import Randomness
from debiasbench.measure.pace import CAPTURED, SECONDS, seconds_per_step
from debiasbench.measure.stopwatch import now
from debiasbench.records.selection import RULES
from debiasbench.training.rules import FollowedRules
from debiasbench.training.trainer import check_stage
from debiasbench.training.untrained import untrained

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.common.progress import Progress
    from debiasbench.core.stage import Stage, Trained
    from debiasbench.core.view import HeldOut
    from debiasbench.training.execution import Execution
    from debiasbench.training.predict import Predictor


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

    `together`: runs that are trained at once; then the time of a step is the share of one of them.
    `times`: of each stage so far. `seconds`: total time in stages. `kept`: the largest number of
    bytes that the weights of all selection rules would take. `state`: the largest number of bytes
    of the tensors of an objective.
    """

    def __init__(
        self,
        execution: Execution,
        predictor: Predictor,
        progress: Progress | None = None,
        *,
        together: int = 1,
    ) -> None:
        self._execution, self._predictor, self._together = execution, predictor, together
        self._progress = progress or Progress()
        self.times: list[StageTime] = []
        self.seconds = 0.0
        self.kept = 0
        self.state = 0

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        """Take the first steps of each stage; return the results after these steps."""
        return [self._rehearse(stage) for stage in stages]

    def _rehearse(self, stage: Stage) -> Trained:
        begun = now()
        check_stage(stage, self._execution)
        step, trained = self._timed(stage)
        assert stage.validation is not None
        looks = stage.batches.epochs(stage.steps) if stage.follows else 0
        look = self._look(stage, stage.validation)
        self.times.append(StageTime(stage.name, stage.steps, looks, step, look))
        state = sum(value.nbytes for value in stage.objective.state_dict().values())
        self.state = max(self.state, state)
        if stage.select:
            self.kept = max(self.kept, len(RULES) * state)
        self.seconds += now() - begun
        return trained

    def _look(self, stage: Stage, validation: HeldOut) -> float:
        """Return the seconds of one evaluation on the validation split."""
        execution, precision = self._execution, stage.settings.precision
        numerics = execution.numerics(precision)
        graph = execution.graph if numerics.graphs else None
        rules = FollowedRules(self._predictor, validation, graph)
        random = Randomness(stage.seed, execution.device)
        # the first one is a warm-up; with graphs, it takes more until one is replayed
        for _ in range(2 if graph is None else CAPTURED):
            started = now()
            rules.measure(stage.objective, random)
        return now() - started

    def _timed(self, stage: Stage) -> tuple[float, Trained]:
        """Return the seconds of a step, and the result after the steps."""
        seconds = seconds_per_step(
            [stage, *(replace(stage.copied(), seed=i) for i in range(1, self._together))],
            self._execution,
            self._predictor,
            self._progress,
            seconds=SECONDS if self._execution.graph is not None else 0.0,
        )
        masks = {n: m for c in stage.components for n, m in c.masks().items()}
        densities = {n: d for c in stage.components for n, d in c.densities().items()}
        return seconds / self._together, untrained(stage, densities=densities, masks=masks)

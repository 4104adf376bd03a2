"""How long a step takes, alone or beside others, and how many runs at once are fastest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from debiasbench.common.errors import OutOfMemory
from debiasbench.common.memory import is_out_of_memory
from debiasbench.common.progress import Progress
from debiasbench.common.signals import Stop
from debiasbench.measure.listening import Listening
from debiasbench.measure.stopwatch import WARM_UP, now
from debiasbench.runs.fit import blamed
from debiasbench.training.device import free_memory
from debiasbench.training.memory import clear
from debiasbench.training.stage_training import StageTraining, Surroundings
from debiasbench.training.together import train_together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.core.stage import Stage
    from debiasbench.runs.session import Session
    from debiasbench.specs.spec import Spec
    from debiasbench.training.execution import Execution
    from debiasbench.training.predict import Predictor

NUMBERS = (1, 2, 4, 8, 16)
SECONDS = 1.0  # of each measurement
STEPS = 20  # timed at least
CAPTURED = 8  # steps until graphs are replayed
GAIN = 1.05  # a larger number must be faster by this factor
ROOM = 0.8  # fraction of the free memory that runs may take


class _Enough(Exception):  # noqa: N818 - it ends a measurement
    """Enough steps were timed."""


class _Clock(Progress):
    """Times the steps of stages that are trained at once, after a warm-up, and then ends them."""

    def __init__(self, warm_up: int, seconds: float, watcher: Progress) -> None:
        self._warm_up, self._minimum, self._watcher = warm_up, seconds, watcher
        self._taken = 0
        self._begun: float | None = None
        self.steps, self.seconds = 0, 0.0

    def start(self, name: str, total: int | None) -> None:
        self._watcher.start(name, None)

    def advance(self, count: int = 1) -> None:
        self._watcher.advance()
        self._taken += 1
        if self._begun is None:
            if self._taken >= self._warm_up:
                self._begun = now()
            return
        self.steps += 1
        # `now` waits for the device, which steps that are replayed do not
        if self.steps % STEPS == 0 and now() - self._begun >= self._minimum:
            raise _Enough

    def finish(self) -> None:
        if self._begun is not None:
            self.seconds = now() - self._begun
        self._watcher.finish()


def seconds_per_step(
    stages: Sequence[Stage],
    execution: Execution,
    predictor: Predictor,
    progress: Progress | None = None,
    *,
    seconds: float = 0.0,
) -> float:
    """Take some steps of stages at once, without validation; return the seconds of one round.

    The stages are trained in place. `seconds`: for how long at least. Raises the error of a stage
    that fails.
    """
    graphs = execution.numerics(stages[0].settings.precision).graphs
    warm_up = min(CAPTURED if graphs else WARM_UP, stages[0].steps - 1)
    clock = _Clock(warm_up, seconds, progress or Progress())
    if warm_up == 0:
        clock.advance()
    surroundings = Surroundings(execution, predictor, None, Progress(), Stop())
    trainings = [
        StageTraining(replace(stage, select=False, validation=None), surroundings)
        for stage in stages
    ]
    try:
        outcomes = train_together(trainings, clock)
    except _Enough:
        outcomes = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return clock.seconds / clock.steps


@dataclass(frozen=True)
class Pace:
    """The speed of `together` runs at once: steps of all networks per second."""

    together: int
    steps_per_second: float


def paces(session: Session, spec: Spec, numbers: Sequence[int] = NUMBERS) -> list[Pace]:
    """Measure the longest stage of a spec with several numbers of runs at once, as far as they fit.

    Raises the errors of `Session.run`.
    """
    listening = Listening()
    fitted = session.rehearse(spec, listening)
    if not listening.stages:
        return []
    stage = max(listening.stages, key=lambda s: s.steps)
    with blamed(fitted.owner, fitted.module):
        return _measured(session, spec, stage, numbers)


def _measured(session: Session, spec: Spec, stage: Stage, numbers: Sequence[int]) -> list[Pace]:
    execution = session.execution
    predictor, device = session.predictor(spec), execution.device
    measured: list[Pace] = []
    needed = 0.0  # bytes of one run
    for number in numbers:
        free = free_memory(device) if execution.graph is not None else None
        if free is not None and number * needed > ROOM * free[0]:
            break
        copies = [replace(stage.copied(), seed=seed) for seed in range(number)]
        try:
            seconds = seconds_per_step(copies, execution, predictor, seconds=SECONDS)
        except OutOfMemory:
            break
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            break
        finally:
            left = free_memory(device) if free is not None else None
            if free is not None and left is not None:
                needed = max(needed, (free[0] - left[0]) / number)
            del copies
            clear(device)
        measured.append(Pace(number, number / seconds))
    return measured


def fastest(session: Session, spec: Spec) -> int:
    """Return how many runs such as `spec` should be run at once on the session's device.

    Without graphs, as on a CPU, it is 1: nothing is gained. Otherwise it is measured.
    """
    if session.execution.graph is None:
        return 1
    best = Pace(1, 0.0)
    for pace in paces(session, spec):
        if pace.steps_per_second > GAIN * best.steps_per_second:
            best = pace
    return best.together

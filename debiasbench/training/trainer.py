"""`Sequential`: trains stages one after the other, stores and resumes them, and can be stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError
from debiasbench.common.progress import Progress
from debiasbench.common.signals import Stop
from debiasbench.core.modes import normalises, train_mode
from debiasbench.training.stage_training import StageTraining, Surroundings
from debiasbench.training.together import train_together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.core.stage import Stage, Trained
    from debiasbench.training.execution import Execution
    from debiasbench.training.predict import Predictor
    from debiasbench.training.stage_store import StageStore


class Sequential:
    """A trainer that trains stages one after the other.

    `predictor`: evaluates for the selection rules. `store`: where running and finished stages are
    stored; None stores nothing. `stop`: a request ends the training between two steps or stages.
    """

    def __init__(
        self,
        execution: Execution,
        predictor: Predictor,
        *,
        store: StageStore | None = None,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> None:
        self._surroundings = Surroundings(
            execution, predictor, store, progress or Progress(), stop or Stop()
        )

    @classmethod
    def within(cls, surroundings: Surroundings) -> Sequential:
        """Return a trainer with what a run's stages share."""
        s = surroundings
        return cls(s.execution, s.predictor, store=s.store, progress=s.progress, stop=s.stop)

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        """Train each stage, or resume it, or load it if it was trained before.

        Raises `TrainingFailed` at the end of an epoch in which a loss was not finite, and
        `Interrupted` after a stop was requested.
        """
        return [self._train(stage) for stage in stages]

    def _train(self, stage: Stage) -> Trained:
        check_stage(stage, self._surroundings.execution)
        (outcome,) = train_together([StageTraining(stage, self._surroundings)])
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def check_stage(stage: Stage, execution: Execution) -> None:
    """Raise `OptionError` for a stage that `execution` cannot train."""
    _check_parts(stage, execution)
    _check_shares(stage, execution.team.size)


def _check_parts(stage: Stage, execution: Execution) -> None:
    """Raise `OptionError` if batches must be computed in parts, but cannot be."""
    objective, parts = stage.objective, stage.settings.micro_batch
    if execution.team.size == 1 and parts is None:
        return
    if parts == "auto":
        raise OptionError(
            f"Stage {stage.name!r} has micro_batch=auto, which must be resolved before training: "
            "set a number"
        )
    option = "train.micro_batch" if execution.team.size == 1 else "torchrun"
    if stage.beside is not None:
        raise OptionError(
            f"{option}: stage {stage.name!r} has a second stream of batches, so its steps cannot "
            "be computed in parts. Leave the option out, or use a smaller --batch-size"
        )
    if not objective.additive:
        raise OptionError(
            f"{option}: the loss of stage {stage.name!r} ({type(objective).__name__}) depends on "
            "the whole batch, so it cannot be computed in parts. Leave the option out, or use a "
            "smaller --batch-size"
        )


def _check_shares(stage: Stage, processes: int) -> None:
    """Raise `OptionError` if a process would get too few samples for BatchNorm."""
    smallest = stage.batches.smallest
    train_mode(stage.objective)
    if processes > 1 and smallest < 2 * processes and normalises(stage.objective):
        raise OptionError(
            f"torchrun: the smallest batch of an epoch has {smallest} samples, but BatchNorm needs "
            f"at least 2 in each of {processes} processes. Use a slightly different --batch-size"
        )

"""`Sequential`: trains stages one after the other, stores and resumes them, and can be stopped."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError
from debiasbench.common.memory import is_out_of_memory
from debiasbench.common.progress import Progress
from debiasbench.common.signals import Stop
from debiasbench.core.modes import normalises, train_mode
from debiasbench.training.batch_size import out_of_memory
from debiasbench.training.device import computing_threads
from debiasbench.training.stage_training import StageTraining, Surroundings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from debiasbench.core.objective import Objective
    from debiasbench.core.settings import Training
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
        self.surroundings = Surroundings(
            execution, predictor, store, progress or Progress(), stop or Stop()
        )

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        """Train each stage, or resume it, or load it if it was trained before.

        Raises `TrainingFailed` at the end of an epoch in which a loss was not finite, and
        `Interrupted` after a stop was requested.
        """
        trained = []
        for stage in stages:
            with computing_threads(stage.settings.threads):
                trained.append(self._train(stage))
        return trained

    def _train(self, stage: Stage) -> Trained:
        execution = self.surroundings.execution
        check_stage(stage, execution)
        with explained(stage, execution):
            training = StageTraining(stage, self.surroundings)
            numerics, run = training.numerics, training.run
            with (
                numerics.applied(),
                numerics.compiled(stage.objective),
                run.random.active(),
            ):
                return self._driven(training, training.turns())

    def _driven(self, training: StageTraining, turns: Generator[None, None, Trained]) -> Trained:
        """Compute each step of a coroutine; return its result."""
        run = training.run
        replays = run.replays(self.surroundings.execution.graph)
        try:
            next(turns)
            while True:
                errors = replays.compute(run.step.samples, eager=run.step.eager)
                if errors:
                    turns.throw(errors[0])
                next(turns)
        except StopIteration as end:
            trained: Trained = end.value
            return trained
        finally:
            turns.close()


@contextmanager
def explained(stage: Stage, execution: Execution) -> Iterator[None]:
    """If memory runs out inside the context, raise an error with the batch size that would fit."""
    try:
        yield
        return
    except (MemoryError, RuntimeError) as error:
        if "deterministic implementation" in str(error):
            raise OptionError(
                f"--deterministic: {str(error).partition('.')[0]}. Run without --deterministic"
            ) from error
        if not is_out_of_memory(error):
            raise
    # outside the handler, the memory of the stage is free
    raise out_of_memory(stage, execution)


def check_stage(stage: Stage, execution: Execution) -> None:
    """Raise `OptionError` for a stage that `execution` cannot train."""
    _check_parts(stage.objective, stage.settings, stage.name, execution)
    _check_shares(stage, execution.team.size)


def _check_parts(
    objective: Objective, settings: Training, stage: str, execution: Execution
) -> None:
    """Raise `OptionError` if batches must be computed in parts, but cannot be."""
    parts = settings.micro_batch
    if execution.team.size == 1 and parts is None:
        return
    if parts == "auto":
        raise OptionError(
            f"Stage {stage!r} has micro_batch=auto, which must be resolved before training: set a "
            "number"
        )
    option = "train.micro_batch" if execution.team.size == 1 else "torchrun"
    if not objective.additive:
        raise OptionError(
            f"{option}: the loss of stage {stage!r} ({type(objective).__name__}) depends on the "
            "whole batch, so it cannot be computed in parts. Leave the option out, or use a "
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

"""`Sequential`: trains stages one after the other, stores and resumes them, and can be stopped."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

from debiasbench.common.errors import Interrupted, OptionError
from debiasbench.common.memory import is_out_of_memory
from debiasbench.common.progress import Progress
from debiasbench.common.signals import Stop
from debiasbench.core.modes import normalises, train_mode
from debiasbench.core.stage import Checkpoint, StageCost, Trained
from debiasbench.training.batch_size import out_of_memory
from debiasbench.training.device import computing_threads
from debiasbench.training.identity import identity
from debiasbench.training.rules import FollowedRules
from debiasbench.training.stage_run import StageRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from debiasbench.core.objective import Objective
    from debiasbench.core.settings import Training
    from debiasbench.core.stage import Stage
    from debiasbench.training.execution import Execution
    from debiasbench.training.predict import Predictor
    from debiasbench.training.stage_store import StageStore, StoredStage


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
        self._execution, self._predictor, self._store = execution, predictor, store
        self._progress = progress or Progress()
        self._stop = stop or Stop()

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
        execution = self._execution
        check_stage(stage, execution)
        numerics = execution.numerics(stage.settings.precision)
        numerics.lay_out(stage.objective.to(execution.device))
        train_mode(stage.objective)
        _check_shares(stage, execution.team.size)
        if any(execution.team.any(0, self._stop.requested)):
            self._interrupt(f" before stage {stage.name!r}")
        with self._stored(stage) as stored:
            finished = execution.team.tell(None if stored is None else stored.finished())
            if finished is not None and (finished["followed"] or not stage.select):
                self._stop.resumable = True
                return self._loaded(stage, finished)
            with numerics.applied(), numerics.compiled(stage.objective):
                trained = self._explained(stage, lambda: self._run(stage, stored))
            if stored is not None:
                stored.finish({**_written(trained), "followed": stage.select})
            self._stop.resumable |= self._store is not None
            return trained

    def _run(self, stage: Stage, stored: StoredStage | None) -> Trained:
        """Take all remaining steps of a stage."""
        rules = None
        if stage.follows and stage.validation is not None:
            rules = FollowedRules(self._predictor, stage.validation)
        checkpoint = self._execution.team.tell(None if stored is None else stored.running())
        if checkpoint is not None and checkpoint["rules"] is None and rules is not None:
            checkpoint = None  # it is from a stage that followed no selection rules
        parts = stage.settings.micro_batch
        run = StageRun(
            stage,
            self._execution,
            self._execution.numerics(stage.settings.precision),
            rules=rules,
            micro_batch=parts if isinstance(parts, int) else None,
            after_epoch=self._progress.epoch,
        )
        with self._watched(stage), run.started():
            if checkpoint is not None:
                self._stop.resumable = True
                run.load_state_dict(checkpoint)
                self._progress.advance(run.at.step)
            for _ in run.steps():
                self._progress.advance()
                self._pause(run, stored)
        run.check_finite()
        return run.trained()

    def _pause(self, run: StageRun, stored: StoredStage | None) -> None:
        """Between two steps: write a checkpoint if one is due, and stop if that was requested."""
        due = stored is not None and stored.is_due()
        stopping, due = self._execution.team.any(run.at.step, self._stop.requested, due)
        if self._store is not None and (stopping or due):
            run.check_finite()  # if this raises, the previous checkpoint is still valid
            state = run.state_dict()  # needs all processes
            if stored is not None:
                stored.checkpoint(state)
            self._stop.resumable = True
        if stopping:
            self._interrupt(
                f" in stage {run.stage.name!r} after {run.at.step} of {run.stage.steps} steps"
            )

    def _interrupt(self, where: str) -> NoReturn:
        raise Interrupted(where, resumable=self._stop.resumable)

    def _explained(self, stage: Stage, run: Callable[[], Trained]) -> Trained:
        """Run a stage; if memory runs out, raise an error with the batch size that would fit."""
        try:
            return run()
        except (MemoryError, RuntimeError) as error:
            if "deterministic implementation" in str(error):
                raise OptionError(
                    f"--deterministic: {str(error).partition('.')[0]}. Run without --deterministic"
                ) from error
            if not is_out_of_memory(error):
                raise
        # outside the handler, the memory of the stage is free
        raise out_of_memory(stage, self._execution)

    @contextmanager
    def _stored(self, stage: Stage) -> Iterator[StoredStage | None]:
        """Yield the files of the stage, or None if this process does not store stages."""
        if self._store is None or self._execution.team.rank:
            yield None
            return
        key = identity(stage)
        with self._store.open(
            stage.name, key.content, shared=key.shared, check=self._stop.check
        ) as stored:
            yield stored

    def _loaded(self, stage: Stage, finished: Mapping[str, Any]) -> Trained:
        """Return the stored result of a stage."""
        assert self._store is not None
        device, objective = self._execution.device, stage.objective
        objective.load_state_dict(finished["objective"])
        kept = finished["checkpoints"] if stage.select else {}
        checkpoints = {
            rule: Checkpoint(epoch, value, {n: v.to(device) for n, v in state.items()})
            for rule, (epoch, value, state) in kept.items()
        }
        masks = {name: mask.to(device) for name, mask in finished["masks"].items()}
        cost = StageCost(**finished["cost"], reused=finished["run"] != self._store.run)
        densities, curves = dict(finished["densities"]), finished["curves"]
        if not stage.follows:  # another run did; this record must not depend on that
            curves = {"loss": curves["loss"]}
        return Trained(objective, checkpoints, densities, masks, cost, curves)

    @contextmanager
    def _watched(self, stage: Stage) -> Iterator[None]:
        self._progress.start(stage.name, stage.steps)
        try:
            with self._stop.held():
                yield
        finally:
            self._progress.finish()


def check_stage(stage: Stage, execution: Execution) -> None:
    """Raise `OptionError` for a stage that `execution` cannot train."""
    _check_parts(stage.objective, stage.settings, stage.name, execution)


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
    if parts is not None and execution.compile == "graphs":
        raise OptionError(
            "--compile graphs cannot compute a batch in parts, since each part would overwrite "
            "the gradients of the previous one. Use --compile on"
        )


def _check_shares(stage: Stage, processes: int) -> None:
    """Raise `OptionError` if a process would get too few samples for BatchNorm."""
    smallest = stage.batches.smallest
    if processes > 1 and smallest < 2 * processes and normalises(stage.objective):
        raise OptionError(
            f"torchrun: the smallest batch of an epoch has {smallest} samples, but BatchNorm needs "
            f"at least 2 in each of {processes} processes. Use a slightly different --batch-size"
        )


def _written(trained: Trained) -> dict[str, object]:
    """Return the result of a stage as plain values and tensors, for a file."""
    assert trained.cost is not None
    return {
        "objective": trained.objective.state_dict(),
        "checkpoints": {
            rule: (kept.epoch, kept.value, kept.state) for rule, kept in trained.checkpoints.items()
        },
        "densities": dict(trained.densities),
        "masks": dict(trained.masks),
        "curves": dict(trained.curves),
        "cost": {k: v for k, v in asdict(trained.cost).items() if k != "reused"},
    }

"""`StageTraining`: a stage from its stored state to its stored result, as a coroutine."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from debiasbench.common.errors import Interrupted
from debiasbench.common.foreign import contained
from debiasbench.core.modes import train_mode
from debiasbench.core.stage import Checkpoint, OptimizerState, StageCost, Trained
from debiasbench.sparsity import NonFiniteGradient
from debiasbench.training.capture import known
from debiasbench.training.identity import Identity, identity
from debiasbench.training.rules import FollowedRules
from debiasbench.training.stage_run import StageRun

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from contextlib import AbstractContextManager

    from debiasbench.common.locks import Wait
    from debiasbench.common.progress import Progress
    from debiasbench.common.signals import Stop
    from debiasbench.core.stage import Stage
    from debiasbench.training.execution import Execution
    from debiasbench.training.predict import Predictor
    from debiasbench.training.stage_store import StageStore, StoredStage


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What the stages of a run share: where they are computed, stored and shown.

    `store`: where running and finished stages are stored; None stores nothing. `stop`: a request
    ends the training between two steps. `owner`: of the code of the stages, in messages.
    """

    execution: Execution
    predictor: Predictor
    store: StageStore | None
    progress: Progress
    stop: Stop
    owner: str = "the method"


class StageTraining:
    """The training of one stage; whoever drives `turns` computes the steps.

    The stage is placed on the device, and its identity is taken, when this object is made.
    `known`: see `debiasbench.training.capture.known`. `share`: seconds that this process trained
    it; of stages trained at once, each has its share.
    """

    def __init__(self, stage: Stage, surroundings: Surroundings) -> None:
        self.execution = execution = surroundings.execution
        self.graph, self.share = execution.graph, 0.0
        self.known = known(stage)
        self.stage, self._surroundings = stage, surroundings
        self.numerics = execution.numerics(stage.settings.precision)
        self.numerics.lay_out(stage.objective.to(execution.device))
        train_mode(stage.objective)
        stores = surroundings.store is not None and execution.team.rank == 0
        self.identity: Identity | None = identity(stage) if stores else None
        parts = stage.settings.micro_batch
        rules = None
        if stage.follows and stage.validation is not None:
            graph = execution.graph if self.numerics.graphs else None
            rules = FollowedRules(surroundings.predictor, stage.validation, graph)
        self.run = StageRun(
            stage,
            execution,
            self.numerics,
            rules=rules,
            micro_batch=parts if isinstance(parts, int) else None,
            after_epoch=surroundings.progress.epoch,
        )

    def contained(self) -> AbstractContextManager[None]:
        """Inside the context, undo what code of others changes, which other stages would find."""
        return nullcontext() if self.known else contained(self._surroundings.owner, signals=False)

    def release(self) -> None:
        """Drop what training needed, such as the optimizer and graphs."""
        vars(self).pop("run", None)

    @property
    def key(self) -> str:
        """A text that is equal for two stages only if they are the same stored stage."""
        store, own = self._surroundings.store, self.identity
        if store is None or own is None:
            return str(id(self))
        return store.key(self.stage.name, own.content, shared=own.shared)

    def turns(self, wait: Wait = "always") -> Generator[None, None, Trained]:
        """Train; yield before each step, which must then be computed.

        Returns the result, which may be a stored one. `wait`: what to do while another process
        trains this stage; see `debiasbench.common.locks.locked`. Raises `TrainingFailed` at the end
        of an epoch in which a loss was not finite, and `Interrupted` after a stop was requested.
        """
        stage, team = self.stage, self._surroundings.execution.team
        stop = self._surroundings.stop
        if any(team.any(0, stop.requested)):
            self._interrupt(f" before stage {stage.name!r}")
        with self._stored(wait) as stored:
            finished = team.tell(None if stored is None else stored.finished())
            if finished is not None and self._suffices(finished):
                stop.resumable = True
                return self._loaded(finished)
            yield from self._steps(stored)
            self.run.check_finite()
            trained = self.run.trained()
            self.share = self.run.share
            if stored is not None:
                stored.finish({**_written(trained), "followed": stage.select})
            stop.resumable |= self._surroundings.store is not None
            return trained

    def _suffices(self, finished: Mapping[str, Any]) -> bool:
        """Return whether a stored result has all that this stage must return."""
        followed = finished["followed"] or not self.stage.select
        return followed and (finished["optimizer"] is not None or not self.stage.keep_optimizer)

    def _steps(self, stored: StoredStage | None) -> Generator[None, None, None]:
        """Take all remaining steps."""
        run, team = self.run, self._surroundings.execution.team
        checkpoint = team.tell(None if stored is None else stored.running())
        if checkpoint is not None and checkpoint["rules"] is None and run.follows:
            checkpoint = None  # it is from a stage that followed no selection rules
        progress = self._surroundings.progress
        with self._watched(), run.started():
            if checkpoint is not None:
                self._surroundings.stop.resumable = True
                run.load_state_dict(checkpoint)
                progress.found(self.stage.name, self.stage.steps, run.curves)
                progress.advance(run.at.step)
            for loaded in run.turns():
                if loaded:
                    try:
                        yield
                    except NonFiniteGradient as error:
                        raise run.not_finite() from error
                else:
                    progress.advance()
                    self._pause(stored)

    def _pause(self, stored: StoredStage | None) -> None:
        """Between two steps: write a checkpoint if one is due, and stop if that was requested."""
        run, stop, store = self.run, self._surroundings.stop, self._surroundings.store
        due = stored is not None and stored.is_due()
        team = self._surroundings.execution.team
        stopping, due = team.any(run.at.step, stop.requested, due)
        if store is not None and (stopping or due):
            run.check_finite()  # if this raises, the previous checkpoint is still valid
            state = run.state_dict()  # needs all processes
            if stored is not None:
                stored.checkpoint(state)
            stop.resumable = True
        if stopping:
            self._interrupt(
                f" in stage {self.stage.name!r} after {run.at.step} of {self.stage.steps} steps"
            )

    def _interrupt(self, where: str) -> NoReturn:
        raise Interrupted(where, resumable=self._surroundings.stop.resumable)

    @contextmanager
    def _stored(self, wait: Wait) -> Iterator[StoredStage | None]:
        """Yield the files of the stage, or None if this process does not store stages."""
        store, key = self._surroundings.store, self.identity
        if store is None or key is None:
            yield None
            return
        with store.open(
            self.stage.name,
            key.content,
            shared=key.shared,
            check=self._surroundings.stop.check,
            wait=wait,
        ) as stored:
            yield stored

    def _loaded(self, finished: Mapping[str, Any]) -> Trained:
        """Return the stored result of the stage."""
        stage, store = self.stage, self._surroundings.store
        assert store is not None
        device, objective = self._surroundings.execution.device, stage.objective
        objective.load_state_dict(finished["objective"])
        kept = finished["checkpoints"] if stage.select else {}
        checkpoints = {
            rule: Checkpoint(epoch, value, {n: v.to(device) for n, v in state.items()})
            for rule, (epoch, value, state) in kept.items()
        }
        masks = {name: mask.to(device) for name, mask in finished["masks"].items()}
        cost = StageCost(**finished["cost"], reused=finished["run"] != store.run)
        densities, curves = dict(finished["densities"]), finished["curves"]
        if not stage.follows:  # another run did; this record must not depend on that
            curves = {"loss": curves["loss"]}
        self._surroundings.progress.found(stage.name, stage.steps, curves)
        state = finished["optimizer"]
        optimizer = None if state is None or not stage.keep_optimizer else OptimizerState(**state)
        return Trained(objective, checkpoints, densities, masks, cost, curves, optimizer)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        progress = self._surroundings.progress
        progress.start(self.stage.name, self.stage.steps)
        try:
            with self._surroundings.stop.held():
                yield
        finally:
            progress.finish()


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
        "optimizer": None if trained.optimizer is None else vars(trained.optimizer),
        "cost": {k: v for k, v in asdict(trained.cost).items() if k != "reused"},
    }

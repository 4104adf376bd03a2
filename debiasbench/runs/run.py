"""Run a resolved spec, and store its record, or as a trial of a search, and store that."""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from debiasbench.common.errors import Interrupted, StoreError, TrainingFailed
from debiasbench.common.signals import Stop, stopped_by_signals
from debiasbench.records.record import (
    Curves,
    Failure,
    Outcome,
    Provenance,
    Record,
    Selected,
    TaskFacts,
)
from debiasbench.records.selection import RULES
from debiasbench.records.store import PREDICTIONS, WEIGHTS, Run, digest, sha256
from debiasbench.records.trial import Trial, TrialRun, Trials
from debiasbench.runs import provenance
from debiasbench.runs.cost import cost_of
from debiasbench.runs.evaluate import evaluate, judged, serialised_weights
from debiasbench.runs.fit import Fitted, blamed, fit_spec, located
from debiasbench.runs.ledger import last_step
from debiasbench.runs.tracking.told import Told
from debiasbench.specs.parts import parts
from debiasbench.specs.resolve import chosen, instance, training_of
from debiasbench.training import stage_store
from debiasbench.training.device import computing_threads, peak_memory, reset_peak_memory
from debiasbench.training.predict import Predictor
from debiasbench.training.stage_store import StageStore
from debiasbench.training.stage_training import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from debiasbench.common.progress import Progress
    from debiasbench.core.stage import Trained, Trainer
    from debiasbench.records.beside import Predictions
    from debiasbench.records.store import Overwrite, Store
    from debiasbench.runs.tracking.trackers import Trackers
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec
    from debiasbench.training.execution import Execution
    from debiasbench.training.placed import PlacedTask


T = TypeVar("T", Run, TrialRun)
R = TypeVar("R", Record, Trial)


class Workplace(Protocol):
    """What a run needs from its session; see `debiasbench.runs.session.Session`."""

    plugins: Plugins
    store: Store
    execution: Execution
    checkpoint_every: float
    interruptible: bool
    progress: Progress
    trackers: Trackers

    def task(self, spec: Spec) -> PlacedTask:
        """Return the task of a spec on the device."""

    def trainer(self, surroundings: Surroundings) -> Trainer:
        """Return what trains the stages of a run."""


def run_spec(workplace: Workplace, spec: Spec, *, overwrite: Overwrite, keep_weights: bool) -> Run:
    """Run a resolved spec unless its record exists; see `Session.run`."""
    store = workplace.store

    def finished() -> Run | None:
        record = store.finished(spec, overwrite, with_weights=keep_weights)
        return None if record is None else Run(record, store.path(spec), fresh=False)

    def made(current: _CurrentRun, save: bool) -> Run:
        record = current.record(keep_weights=keep_weights)
        path = store.path(spec)
        if save:
            path = store.save(record, current.predictions, current.weights)
        return Run(record, path, fresh=True)

    follow = partial(workplace.trackers.follow, spec, store.path)
    return _run(workplace, spec, overwrite, finished, store.claim, made, follow)


def run_trial(workplace: Workplace, spec: Spec, *, overwrite: Overwrite) -> TrialRun:
    """Run a resolved spec as a trial of a search unless the trial exists; see `Session.trial`."""
    trials = Trials(workplace.store.folder)

    def finished() -> TrialRun | None:
        trial = trials.finished(spec, overwrite)
        return None if trial is None else TrialRun(trial, trials.path(spec), fresh=False)

    def made(current: _CurrentRun, save: bool) -> TrialRun:
        trial = current.trial()
        path = trials.save(trial, current.predictions) if save else trials.path(spec)
        return TrialRun(trial, path, fresh=True)

    def unfollowed() -> AbstractContextManager[Told]:
        return nullcontext(Told(None))  # trackers are told of runs that are reported

    return _run(workplace, spec, overwrite, finished, trials.claim, made, unfollowed)


def _run(
    workplace: Workplace,
    spec: Spec,
    overwrite: Overwrite,
    finished: Callable[[], T | None],
    claim: Callable[[Spec], AbstractContextManager[None]],
    made: Callable[[_CurrentRun, bool], T],
    follow: Callable[[], AbstractContextManager[Told]],
) -> T:
    """Return what is finished, or claim the spec, and make and save a record or a trial of it.

    `follow`: what tells trackers of it.
    """
    team = workplace.execution.team
    if (existing := team.tell(finished())) is not None:
        return existing
    following = stopped_by_signals() if workplace.interruptible else nullcontext(Stop())
    threads = computing_threads(training_of(spec).threads)
    with following as stop, stop.explaining(), threads:
        if team.size == 1:  # several processes must stop at the same place
            stop.check()
        with claim(spec) if team.rank == 0 else nullcontext():
            # another process may have finished the run while this one waited for the claim
            if (existing := team.tell(finished())) is not None:
                return existing
            with follow() as told:
                current = _CurrentRun(workplace, spec, overwrite, stop, told)
                result = made(current, team.rank == 0)
                if team.rank:
                    return result
                if isinstance(result, Run):
                    told.ended(result.record)
            stop.resumable = True
            if result.record.failure is None:  # the stages of a failed run are kept for inspection
                current.stages.done()
            with suppress(StoreError, Interrupted):  # the record is written
                stage_store.collect(current.stages.folder)
            return result


class _CurrentRun:
    """Trains and evaluates a spec; makes its record and the files beside it."""

    def __init__(
        self, workplace: Workplace, spec: Spec, overwrite: Overwrite, stop: Stop, told: Told
    ) -> None:
        self._begun, self._started = time.perf_counter(), datetime.now(UTC)
        self._workplace, self._spec, self._stop = workplace, spec, stop
        self.predictions: Predictions | None = None
        self.weights: bytes | None = None
        self._waited = 0.0  # seconds in which other runs were computed
        reset_peak_memory(workplace.execution.device)
        self._placed = workplace.task(spec)
        self._facts = _facts(self._placed)
        task = self._placed.task
        self._progress = told.progress(workplace.progress)
        self._progress.begin(
            f"{spec.method.name} on {spec.dataset.name}",
            task.select if RULES[task.select] else f"val_{task.metric}",
        )
        self._training = training_of(spec)
        self._predictor = Predictor(workplace.execution, self._training.precision, stop=stop)
        self.stages = self._stage_store(overwrite)

    def record(self, *, keep_weights: bool) -> Record:
        """Train, evaluate, and return the record, with status "failed" for NaN."""
        return self._result(
            Record(**self._stated()),
            lambda empty, fitted: self._evaluated(empty, fitted, keep_weights=keep_weights),
        )

    def trial(self) -> Trial:
        """Train, evaluate the validation split alone, and return the trial."""
        return self._result(Trial(**self._stated()), self._validated)

    def _result(self, empty: R, evaluated: Callable[[R, Fitted], R]) -> R:
        try:
            fitted = self._fit()
            with blamed(fitted.owner, fitted.module), located(*last_step(fitted.costs)):
                return evaluated(empty, fitted)
        except TrainingFailed as error:
            failure = Failure(error.kind, str(error), error.stage, error.step, error.last_loss)
            return replace(empty, status="failed", failure=failure)

    def _stated(self) -> dict[str, Any]:
        """Return what a record or a trial says before it is trained."""
        spec = self._spec
        return {
            "id": spec.id,
            "status": "ok",
            "spec": spec,
            "supervision": instance(self._workplace.plugins.methods, spec.method).supervision,
            "task": self._facts,
            "provenance": self._provenance(),
        }

    def _fit(self) -> Fitted:
        workplace = self._workplace
        surroundings = Surroundings(
            workplace.execution,
            self._predictor,
            self.stages,
            self._progress,
            self._stop,
            owner=str(workplace.plugins.methods[self._spec.method.name]),
        )
        trainer = workplace.trainer(surroundings)
        fitted = fit_spec(self._spec, workplace.plugins, self._placed, trainer, self._predictor)
        self._waited = getattr(trainer, "waited", 0.0)
        return fitted

    def _evaluated(self, empty: Record, fitted: Fitted, *, keep_weights: bool) -> Record:
        spec, task = self._spec, self._placed.task
        splits = {"val": self._placed.held_out("val"), "test": self._placed.held_out("test")}
        evaluation = evaluate(fitted.trained, splits, self._predictor, Outcome)
        self.predictions, inference = evaluation.predictions, None
        if fitted.inferred is not None:
            inference, beside = judged(fitted.inferred, fitted.inferred_after, task)
            self.predictions = {**evaluation.predictions, **beside}
        weights = None
        if keep_weights:
            self.weights = serialised_weights(fitted.trained, task)
            weights = {
                "file": spec.stem + WEIGHTS,
                "sha256": sha256(self.weights),
                "rule": task.select,
            }
        return replace(
            empty,
            outcomes=evaluation.outcomes,
            **self._measured(fitted, self.predictions),
            weights=weights,
            inference=inference,
        )

    def _validated(self, empty: Trial, fitted: Fitted) -> Trial:
        splits = {"val": self._placed.held_out("val")}
        evaluation = evaluate(fitted.trained, splits, self._predictor, Selected)
        self.predictions = evaluation.predictions
        return replace(
            empty, outcomes=evaluation.outcomes, **self._measured(fitted, self.predictions)
        )

    def _measured(self, fitted: Fitted, predictions: Predictions) -> dict[str, Any]:
        """Return the cost, the curves, and the entry of the predictions."""
        return {
            "cost": cost_of(
                fitted,
                self._placed.held_out("val"),
                self._predictor,
                seconds=time.perf_counter() - self._begun - self._waited,
                peak_memory=peak_memory(self._workplace.execution.device),
            ),
            "predictions": {
                "file": self._spec.stem + PREDICTIONS,
                "sha256": digest(predictions),
            },
            "curves": [_curves(stage) for stage in fitted.stages],
        }

    def _stage_store(self, overwrite: Overwrite) -> StageStore:
        workplace, spec, execution = self._workplace, self._spec, self._workplace.execution
        every = parts(workplace.plugins, spec)
        instances = {kind: instance(*part) for kind, part in every.items()}
        method = instances.pop("method")
        identity: Mapping[str, object] = {
            "data": self._facts.fingerprint,
            "dataset": asdict(spec.dataset),  # the fingerprint does not cover augmentation
            "model": asdict(spec.model),
            # not the method's code, since a stage contains everything that the method decides
            "code": provenance.code(*instances.values()),
            "versions": provenance.versions(instances["model"]),
            # of a CPU, with the number of threads
            "hardware": f"{execution.device} {execution.hardware}",
            "numerics": asdict(self._predictor.numerics),
            "processes": execution.team.size,
        }
        return StageStore(
            workplace.store.folder / stage_store.FOLDER,
            identity=identity,
            run=spec.id,
            own=provenance.code(method),
            every=workplace.checkpoint_every,
            reuse=overwrite != "always",
        )

    def _provenance(self) -> Provenance:
        execution, plugins = self._workplace.execution, self._workplace.plugins
        every = parts(plugins, self._spec)
        return Provenance(
            plugins={kind: str(r[choice.name].origin) for kind, (r, choice) in every.items()},
            versions=provenance.versions(instance(*every["model"])),
            device=str(execution.device),
            hardware=execution.hardware,
            deterministic=execution.repeatable,
            git=provenance.git_commit(),
            arithmetic={
                **asdict(self._predictor.numerics),
                "processes": execution.team.size,
                "threads": torch.get_num_threads(),
            },
            started=self._started.isoformat(timespec="seconds"),
            code=provenance.code(*(instance(*part) for part in every.values())),
            plugin_code=provenance.plugin_code(plugins, self._spec),
            chosen=chosen(plugins, self._spec),
        )


def _curves(stage: Trained) -> Curves:
    name = "" if stage.cost is None else stage.cost.name
    values = {
        key: [float(f"{value:.6g}") for value in curve] for key, curve in stage.curves.items()
    }
    return Curves(name, values)


def _facts(placed: PlacedTask) -> TaskFacts:
    task = placed.task
    return TaskFacts(
        classes=list(task.classes),
        biases=list(task.biases),
        aligned=task.aligned.tolist(),
        metric=task.metric,
        select=task.select,
        group_counts={
            name: task.group_counts(split).tolist() for name, split in task.splits().items()
        },
        fingerprint=placed.fingerprint,
    )

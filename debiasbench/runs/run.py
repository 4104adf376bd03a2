"""Run a resolved spec, and store its record."""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import torch

from debiasbench.common.errors import Interrupted, StoreError, TrainingFailed
from debiasbench.common.signals import Stop, stopped_by_signals
from debiasbench.records.record import Curves, Failure, Provenance, Record, TaskFacts
from debiasbench.records.selection import RULES
from debiasbench.records.store import PREDICTIONS, WEIGHTS, Run, digest, sha256
from debiasbench.runs import provenance
from debiasbench.runs.cost import cost_of
from debiasbench.runs.evaluate import evaluate, judged, serialised_weights
from debiasbench.runs.fit import Fitted, blamed, fit_spec, located
from debiasbench.runs.ledger import last_step
from debiasbench.specs.parts import parts
from debiasbench.specs.resolve import instance, training_of
from debiasbench.training import stage_store
from debiasbench.training.device import computing_threads, peak_memory, reset_peak_memory
from debiasbench.training.predict import Predictor
from debiasbench.training.stage_store import StageStore
from debiasbench.training.stage_training import Surroundings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debiasbench.common.progress import Progress
    from debiasbench.core.stage import Trained, Trainer
    from debiasbench.records.beside import Predictions
    from debiasbench.records.store import Overwrite, Store
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec
    from debiasbench.training.execution import Execution
    from debiasbench.training.placed import PlacedTask


class Workplace(Protocol):
    """What a run needs from its session; see `debiasbench.runs.session.Session`."""

    plugins: Plugins
    store: Store
    execution: Execution
    checkpoint_every: float
    interruptible: bool
    progress: Progress

    def task(self, spec: Spec) -> PlacedTask:
        """Return the task of a spec on the device."""

    def trainer(self, surroundings: Surroundings) -> Trainer:
        """Return what trains the stages of a run."""


def run_spec(workplace: Workplace, spec: Spec, *, overwrite: Overwrite, keep_weights: bool) -> Run:
    """Run a resolved spec unless its record exists; see `Session.run`."""
    store, team = workplace.store, workplace.execution.team

    def finished() -> Run | None:
        record = store.finished(spec, overwrite, with_weights=keep_weights)
        return None if record is None else Run(record, store.path(spec), fresh=False)

    if (existing := team.tell(finished())) is not None:
        return existing
    following = stopped_by_signals() if workplace.interruptible else nullcontext(Stop())
    threads = computing_threads(training_of(spec).threads)
    with following as stop, stop.explaining(), threads:
        if team.size == 1:  # several processes must stop at the same place
            stop.check()
        with store.claim(spec) if team.rank == 0 else nullcontext():
            # another process may have finished the run while this one waited for the claim
            if (existing := team.tell(finished())) is not None:
                return existing
            current = _CurrentRun(workplace, spec, overwrite, stop)
            record = current.record(keep_weights=keep_weights)
            if team.rank:
                return Run(record, store.path(spec), fresh=True)
            path = store.save(record, current.predictions, current.weights)
            stop.resumable = True
            if record.failure is None:  # the stages of a failed run are kept for inspection
                current.stages.done()
            with suppress(StoreError, Interrupted):  # the record is written
                stage_store.collect(current.stages.folder)
            return Run(record, path, fresh=True)


class _CurrentRun:
    """Trains and evaluates a spec; makes its record and the files beside it."""

    def __init__(self, workplace: Workplace, spec: Spec, overwrite: Overwrite, stop: Stop) -> None:
        self._begun, self._started = time.perf_counter(), datetime.now(UTC)
        self._workplace, self._spec, self._stop = workplace, spec, stop
        self.predictions: Predictions | None = None
        self.weights: bytes | None = None
        self._waited = 0.0  # seconds in which other runs were computed
        reset_peak_memory(workplace.execution.device)
        self._placed = workplace.task(spec)
        self._facts = _facts(self._placed)
        task = self._placed.task
        workplace.progress.begin(
            f"{spec.method.name} on {spec.dataset.name}",
            task.select if RULES[task.select] else f"val_{task.metric}",
        )
        self._training = training_of(spec)
        self._predictor = Predictor(workplace.execution, self._training.precision, stop=stop)
        self.stages = self._stage_store(overwrite)

    def record(self, *, keep_weights: bool) -> Record:
        """Train, evaluate, and return the record, with status "failed" for NaN."""
        spec, workplace = self._spec, self._workplace
        empty = Record(
            id=spec.id,
            status="ok",
            spec=spec,
            supervision=instance(workplace.plugins.methods, spec.method).supervision,
            task=self._facts,
            provenance=self._provenance(),
        )
        try:
            fitted = self._fit()
            with blamed(fitted.owner, fitted.module), located(*last_step(fitted.costs)):
                return self._evaluated(empty, fitted, keep_weights=keep_weights)
        except TrainingFailed as error:
            failure = Failure(error.kind, str(error), error.stage, error.step, error.last_loss)
            return replace(empty, status="failed", failure=failure)

    def _fit(self) -> Fitted:
        workplace = self._workplace
        surroundings = Surroundings(
            workplace.execution,
            self._predictor,
            self.stages,
            workplace.progress,
            self._stop,
            owner=str(workplace.plugins.methods[self._spec.method.name]),
        )
        trainer = workplace.trainer(surroundings)
        fitted = fit_spec(self._spec, workplace.plugins, self._placed, trainer, self._predictor)
        self._waited = getattr(trainer, "waited", 0.0)
        return fitted

    def _evaluated(self, empty: Record, fitted: Fitted, *, keep_weights: bool) -> Record:
        spec, task = self._spec, self._placed.task
        validation = self._placed.held_out("val")
        splits = {"val": validation, "test": self._placed.held_out("test")}
        evaluation = evaluate(fitted.trained, splits, self._predictor)
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
            cost=cost_of(
                fitted,
                validation,
                self._predictor,
                seconds=time.perf_counter() - self._begun - self._waited,
                peak_memory=peak_memory(self._workplace.execution.device),
            ),
            predictions={
                "file": spec.stem + PREDICTIONS,
                "sha256": digest(self.predictions),
            },
            weights=weights,
            curves=[_curves(stage) for stage in fitted.stages],
            inference=inference,
        )

    def _stage_store(self, overwrite: Overwrite) -> StageStore:
        workplace, spec, execution = self._workplace, self._spec, self._workplace.execution
        chosen = parts(workplace.plugins, spec)
        instances = {kind: instance(*part) for kind, part in chosen.items()}
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
        chosen = parts(plugins, self._spec)
        return Provenance(
            plugins={kind: str(r[choice.name].origin) for kind, (r, choice) in chosen.items()},
            versions=provenance.versions(instance(*chosen["model"])),
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
            code=provenance.code(*(instance(*part) for part in chosen.values())),
            plugin_code=provenance.plugin_code(plugins, self._spec),
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

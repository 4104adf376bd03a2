"""From a spec to a record: the only module that sees every layer."""

from __future__ import annotations

import json
import math
import signal
import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from debiasbench.common.errors import (
    DataError,
    DebiasbenchError,
    OptionError,
    PluginError,
    SupervisionError,
    TrainingFailed,
    UnknownNameError,
)
from debiasbench.common.options import parse
from debiasbench.common.randomness import derive, seeded
from debiasbench.core.lab import Lab, as_objective, visible_labels
from debiasbench.core.method import Supervision
from debiasbench.core.settings import Training
from debiasbench.core.stage import Trained
from debiasbench.files import task_cache
from debiasbench.records.metrics import METRICS, accuracies
from debiasbench.records.record import (
    Cost,
    Failure,
    Outcome,
    Provenance,
    Record,
    SplitResult,
    TaskFacts,
)
from debiasbench.records.selection import RULES
from debiasbench.records.store import (
    PREDICTIONS,
    WEIGHTS,
    Overwrite,
    Run,
    Store,
    digest,
    prediction_key,
    sha256,
)
from debiasbench.runs import provenance
from debiasbench.sparsity import Sparsify, SparsityError, maskable
from debiasbench.specs.resolve import instance
from debiasbench.specs.spec import Choice, Spec
from debiasbench.training import stage_store
from debiasbench.training.distributed import joined
from debiasbench.training.engine import Engine, is_finite, resolve_device
from debiasbench.training.placed import HeldOut, View
from debiasbench.training.stage_store import Stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from debiasbench.common.progress import Progress
    from debiasbench.core.component import Component
    from debiasbench.core.data import Dataset, Split, Task
    from debiasbench.core.method import Method
    from debiasbench.core.model import Model
    from debiasbench.sparsity import Updater
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.registry import Registry
    from debiasbench.training.precision import Compile

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # the last is what Slurm users ask for


def run(
    spec: Spec,
    plugins: Plugins,
    *,
    results: Path,
    data_root: Path,
    device: str = "auto",
    compile: Compile = "off",  # noqa: A002 - what torch calls it
    deterministic: bool = False,
    overwrite: Overwrite = "failed",
    keep_weights: bool = False,
    checkpoint_every: float = 60.0,
    interruptible: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Run a spec and keep its record, or return the record that is there.

    A run that was killed goes on from its last checkpoint; stages that any run in `results` has
    trained are not trained again. `checkpoint_every`: seconds between checkpoints, which take a
    fiftieth of the time at most. `interruptible`: SIGINT, SIGTERM and SIGUSR1 end the run after
    the step at hand, with a checkpoint and `Interrupted`; for a program's main thread alone.

    `compile`, `deterministic`: see `Arithmetic`. Processes that `torchrun` started train the run
    together; all return it, the first writes it.

    `overwrite`: run again "never", if the record says "failed", or "always". `keep_weights`:
    write the network's weights beside the record, those of the data set's selection rule.
    A loss that becomes NaN ends in a record of status "failed".
    Raises `BusyError` if another process is running the spec, and whatever else
    `debiasbench.common.errors` lists; then nothing is kept.
    """
    store = Store(results)
    training = parse(Training, spec.training, owner="training")
    with joined(resolve_device(device)) as team:
        engine = Engine(
            device, progress, precision=training.precision, compile=compile,
            deterministic=deterministic, team=team,
        )  # fmt: skip

        def finished() -> Run | None:
            done = store.finished(spec, overwrite, with_weights=keep_weights)
            return None if done is None else Run(done, store.path(spec), fresh=False)

        if (done := team.tell(finished())) is not None:
            return done
        with store.claim(spec) if team.rank == 0 else nullcontext():
            # another process may have finished it while this one waited to begin
            if (done := team.tell(finished())) is not None:
                return done
            keep = partial(
                Stages, store.folder / stage_store.FOLDER, run=spec.id, every=checkpoint_every,
                reuse=overwrite != "always",
            )  # fmt: skip
            with _heeding_signals(engine) if interruptible else nullcontext():
                record, predictions, weights = _execute(
                    spec, plugins, engine, training, data_root, keep_weights, keep
                )
            if team.rank:
                return Run(record, store.path(spec), fresh=True)
            path = store.save(record, predictions, weights)
            if engine.kept_in is not None:
                if record.failure is None:  # else what was good stays to be looked into
                    engine.kept_in.done()
                stage_store.collect(engine.kept_in.folder)
            return Run(record, path, fresh=True)


@contextmanager
def _heeding_signals(engine: Engine) -> Iterator[None]:
    """Let the engine stop in good order at a first signal; a second one is as it was before."""
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def heed(number: int, _frame: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        engine.stop()

    for number in before:
        signal.signal(number, heed)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _execute(
    spec: Spec,
    plugins: Plugins,
    engine: Engine,
    training: Training,
    data_root: Path,
    keep_weights: bool,
    keep: Callable[..., Stages],
) -> tuple[Record, dict[str, NDArray[np.integer]] | None, bytes | None]:
    begun, started = time.perf_counter(), datetime.now(UTC)
    dataset: Dataset = instance(plugins.datasets, spec.dataset)
    model: Model = instance(plugins.models, spec.model)
    method: Method = instance(plugins.methods, spec.method)
    updater: Updater | None = (
        instance(plugins.sparsifiers, spec.sparse) if spec.sparse is not None else None
    )
    task = _load(dataset, data_root, plugins, spec)
    facts, origins = _facts(task), _origins(plugins, spec)
    engine.kept_in = keep(
        identity={
            "data": facts.fingerprint,
            "dataset": asdict(spec.dataset),  # the fingerprint knows nothing of augmentation
            "model": asdict(spec.model),
            # not the method's: it acts through what a stage is given
            "code": provenance.code(dataset, model, *([] if updater is None else [updater])),
            "versions": provenance.versions(),
            "hardware": f"{engine.device} {engine.hardware()}",
        },
        own=provenance.code(method),
    )

    validation = HeldOut.of(task, task.val, engine.device)
    failure: Failure | None = None
    outcomes: dict[str, Outcome] = {}
    cost: Cost | None = None
    predictions: dict[str, NDArray[np.integer]] | None = None
    weights: bytes | None = None
    try:
        fitted = fit(
            task,
            method,
            model=model,
            training=training,
            seed=spec.seed,
            engine=engine,
            validation=validation,
            components=lambda: [Sparsify(updater)] if updater is not None else [],
            owner=str(plugins.methods[spec.method.name]),
        )
    except TrainingFailed as error:
        failure = Failure("NonFiniteLoss", str(error), error.stage, error.step, error.last_loss)
    else:
        sides = {"val": validation, "test": HeldOut.of(task, task.test, engine.device)}
        outcomes, predictions = _evaluate(fitted, sides, engine)
        if keep_weights:
            weights = _weights(fitted, task)
        cost = _cost(fitted, validation, engine, time.perf_counter() - begun)

    record = Record(
        id=spec.id,
        status="failed" if failure else "ok",
        spec=spec,
        supervision=method.supervision,
        task=facts,
        provenance=Provenance(
            plugins=origins,
            versions=provenance.versions(),
            device=str(engine.device),
            hardware=engine.hardware(),
            deterministic=engine.deterministic(),
            git=provenance.git_commit(),
            code=provenance.code(dataset, model, method, updater),
            arithmetic={**asdict(engine.arithmetic), "processes": engine.team.size},
            started=started.isoformat(timespec="seconds"),
        ),
        outcomes=outcomes,
        cost=cost,
        failure=failure,
        predictions=None
        if predictions is None
        else {"file": spec.stem + PREDICTIONS, "sha256": digest(predictions)},
        weights=None
        if weights is None
        else {"file": spec.stem + WEIGHTS, "sha256": sha256(weights), "rule": task.select},
    )
    return record, predictions, weights


def _origins(plugins: Plugins, spec: Spec) -> dict[str, str]:
    """Name the distribution that each part of a spec comes from."""
    parts: dict[str, tuple[Registry[Any], Choice | None]] = {
        "dataset": (plugins.datasets, spec.dataset),
        "model": (plugins.models, spec.model),
        "method": (plugins.methods, spec.method),
        "sparse": (plugins.sparsifiers, spec.sparse),
    }
    return {
        kind: str(registry[choice.name].origin)
        for kind, (registry, choice) in parts.items()
        if choice is not None
    }


def _load(dataset: Dataset, root: Path, plugins: Plugins, spec: Spec) -> Task:
    entry = plugins.datasets[spec.dataset.name]
    try:
        task = task_cache.load(spec.dataset.name, dataset, root)
    except DebiasbenchError:
        raise
    except Exception as error:
        raise DataError(f"{entry} could not be loaded: {_what(error)}") from error
    for name, known in ((task.metric, METRICS), (task.select, RULES)):
        if name not in known:
            raise UnknownNameError(f"metric or selection rule of {entry}", name, known)
    return task


def fit(
    task: Task,
    method: Method,
    *,
    model: Model,
    training: Training,
    seed: int,
    engine: Engine,
    validation: HeldOut | None = None,
    components: Callable[[], Sequence[Component]] = tuple,
    owner: str = "the method",
) -> Trained:
    """Let a method train, seeing what it declares; the test split stays outside.

    `components` makes what is added to every stage; `owner` names the method in errors.
    """
    supervision = method.supervision
    if not isinstance(supervision, Supervision):
        raise PluginError(f"{owner}: supervision is {supervision!r}, must be a Supervision(...)")

    def view(split: Split, level: str) -> View:
        return View(task, split, visible_labels(task, split, level), engine.device)

    views = {"train": view(task.train, supervision.train)}
    if supervision.val != "none":
        views["val"] = view(task.val, "groups")
    lab = Lab(
        engine=engine,
        train_stage=partial(
            engine.train,
            validation=validation or HeldOut.of(task, task.val, engine.device),
        ),
        model=model,
        shape=task.shape,
        num_biases=len(task.biases),
        views=views,
        supervision=supervision,
        training=training,
        seed=seed,
        components=components,
    )
    try:
        with seeded(derive(seed, "fit")):  # for a method that draws from torch's own generator
            fitted = method.fit(lab)
    except SupervisionError as error:
        raise SupervisionError(f"{owner}: {error}") from error
    except SparsityError as error:
        raise OptionError(f"{owner}: {error}") from error
    except DebiasbenchError:
        raise
    except Exception as error:
        raise PluginError(f"{owner} raised {_what(error)}") from error
    return _as_trained(fitted, engine, owner)


def _as_trained(fitted: object, engine: Engine, owner: str) -> Trained:
    """Check what a method returned; a network or objective is taken as it is by every rule."""
    if isinstance(fitted, Trained):
        last = fitted.checkpoints.get("last")
        now = fitted.objective.state_dict()
        if last and any(not torch.equal(now[name], value) for name, value in last.state.items()):
            raise PluginError(
                f"{owner} changed weights after lab.train and returned the stage, whose "
                "checkpoints would undo it: return the network, stage.objective.network, instead"
            )
        return fitted
    if not isinstance(fitted, nn.Module):
        raise PluginError(
            f"{owner} returned {type(fitted).__name__} from fit; return what lab.train returns, "
            "or a network"
        )
    objective = as_objective(fitted)
    if not is_finite(objective):
        raise PluginError(f"{owner} returned a network with a weight that is NaN or infinite")
    weights = dict(objective.named_parameters())
    densities = {
        # what the method replaced since, such as a refitted head, is dense
        name: density
        for name, density in engine.densities.items()
        if name in weights
        and weights[name].count_nonzero() <= round(density * weights[name].numel())
    }
    return Trained(objective, densities=densities)


def _evaluate(
    fitted: Trained, sides: Mapping[str, HeldOut], engine: Engine
) -> tuple[dict[str, Outcome], dict[str, NDArray[np.integer]]]:
    """Read the test split, once for each set of weights that some rule kept."""
    predictions = {
        f"{name}.{what}": _compact(values)
        for name, side in sides.items()
        for what, values in side.view.labels.items()
    }
    outcomes: dict[str, Outcome] = {}
    seen: dict[int, dict[str, SplitResult]] = {}
    for rule in RULES:
        kept = fitted.checkpoints.get(rule)
        if fitted.checkpoints and kept is None:
            continue  # its metric was undefined throughout
        weights = id(kept.state) if kept else 0
        if weights not in seen:
            if kept:
                fitted.objective.load_state_dict(kept.state)
            seen[weights] = {}
            for name, side in sides.items():
                logits = engine.predict(fitted.objective, side.view)
                hits = engine.hits(logits, side.view, len(side.totals))
                seen[weights][name] = SplitResult(hits, accuracies(side.counts(hits)))
                key = prediction_key(kept.epoch if kept else None)
                predictions[f"{name}.{key}"] = _compact(logits.argmax(1))
        outcomes[rule] = Outcome(
            epoch=kept.epoch if kept else None,
            value=kept.value if kept else math.nan,
            **seen[weights],
        )
    return outcomes, predictions


def _weights(fitted: Trained, task: Task) -> bytes:
    """Serialise the network under the data set's selection rule, with the shape that it fits."""
    from safetensors.torch import save

    if task.select in fitted.checkpoints:
        fitted.objective.load_state_dict(fitted.checkpoints[task.select].state)
    state = fitted.objective.network.state_dict()
    # one entry: safetensors writes several in any order, and equal runs give equal files
    shape = {"shape": json.dumps({"input": task.shape.input, "classes": task.shape.classes})}
    return save({n: v.detach().cpu().clone().contiguous() for n, v in state.items()}, shape)


def _compact(values: Tensor) -> NDArray[np.integer]:
    """Labels in the smallest type that holds them."""
    array = values.cpu().numpy()
    return array.astype(np.min_scalar_type(int(array.max())))


def _cost(fitted: Trained, validation: HeldOut, engine: Engine, seconds: float) -> Cost:
    objective = fitted.objective
    sizes = {f"network.{n}": p.numel() for n, p in maskable(objective.network).items()}
    density = {name: fitted.densities.get(name, 1.0) for name in sizes}
    inactive = sum(round((1 - density[name]) * size) for name, size in sizes.items())
    maskable_weights = sum(sizes.values())
    parameters = sum(p.numel() for p in objective.network.parameters())
    dense, by_layer = engine.flops(objective, validation.view)
    training = sum(c.seconds for c in engine.costs)
    return Cost(
        wall_seconds=seconds,
        training_seconds=training,
        images_per_second=sum(c.samples for c in engine.costs) / training if training else 0.0,
        peak_memory_bytes=engine.peak_memory(),
        parameters=parameters,
        active_parameters=parameters - inactive,
        density=1 - inactive / maskable_weights if maskable_weights else 1.0,
        inference_flops=dense - sum((1 - density[n]) * by_layer.get(n, 0.0) for n in sizes),
        training_flops=sum(c.flops for c in engine.costs),
        stages=[asdict(c) for c in engine.costs],
    )


def _facts(task: Task) -> TaskFacts:
    return TaskFacts(
        classes=list(task.classes),
        biases=list(task.biases),
        aligned=task.aligned.tolist(),
        metric=task.metric,
        select=task.select,
        group_counts={
            name: task.group_counts(split).tolist() for name, split in task.splits().items()
        },
        fingerprint=task.fingerprint(),
    )


def _what(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]

"""What runs will take: a few steps of each kind of run, timed in the real loop, and multiplied."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import DataError, DebiasbenchError
from debiasbench.common.progress import Silent
from debiasbench.core.data import Split, Task
from debiasbench.core.settings import Training
from debiasbench.core.stage import Trained
from debiasbench.files import task_cache
from debiasbench.records.selection import RULES
from debiasbench.runs.run import fit
from debiasbench.sparsity import Sparsify
from debiasbench.specs.resolve import instance, training_of
from debiasbench.training.engine import Engine
from debiasbench.training.placed import HeldOut

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from torch import Tensor

    from debiasbench.common.progress import Progress
    from debiasbench.core.data import Dataset
    from debiasbench.core.objective import Objective
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec
    from debiasbench.specs.suite import StandIn
    from debiasbench.training.placed import View

WARM_UP = 3  # steps before the clock starts: kernels are chosen, memory is taken
STEPS = 20  # steps that are timed
FREE = {"lr", "momentum", "weight_decay"}  # settings that cost nothing


@dataclass(frozen=True)
class Stage:
    """One of a method's stages: how long it is, and what a part of it took."""

    name: str
    steps: int  # as many as it will have
    looks: int  # at the validation split
    step: float  # seconds of one
    look: float  # seconds of one

    @property
    def seconds(self) -> float:
        """Seconds of the whole stage."""
        return self.steps * self.step + self.looks * self.look


@dataclass(frozen=True)
class Forecast:
    """What runs of one kind will take, by a measurement of the first of them."""

    spec: Spec  # the one measured
    runs: int
    differ: tuple[str, ...]  # names of options in which they do
    hardware: str
    stages: tuple[Stage, ...] = ()
    around: float = 0.0  # seconds a run beside its stages: data, the method's rest, evaluation
    memory: int = 0  # bytes: see `Engine.peak_memory`
    stand_in: str = ""  # why images were random
    problem: str = ""  # why there is no forecast

    @property
    def seconds(self) -> float:
        """Seconds of one run, NaN without a forecast."""
        return math.nan if self.problem else self.around + sum(s.seconds for s in self.stages)


def forecast(
    specs: Iterable[Spec],
    plugins: Plugins,
    *,
    data_root: Path,
    device: str = "auto",
    stand_ins: Mapping[str, StandIn] | None = None,
    progress: Progress | None = None,
) -> list[Forecast]:
    """Measure each kind of run on the device, and say what one run of it will take.

    Of one kind are runs whose data set, network with its options, method, sparsifier and training
    are the same, learning rate, momentum and decay aside; the options in which they `differ` are
    taken to cost nothing.
    `stand_ins`: by data set; where its files are missing, random images of that shape are used.
    What cannot be measured comes back with a `problem`. Raises `OptionError` for the device.
    """
    kinds: dict[str, list[Spec]] = {}
    for spec in specs:
        kinds.setdefault(_kind(spec), []).append(spec)
    found = []
    for alike in kinds.values():
        engine = _Rehearsal(device, progress or Silent())
        empty = Forecast(alike[0], len(alike), _differing(alike), engine.hardware())
        try:
            found.append(_measured(empty, engine, plugins, data_root, stand_ins or {}))
        except DebiasbenchError as error:
            found.append(replace(empty, problem=str(error)))
    return found


def _kind(spec: Spec) -> str:
    settings = {name: value for name, value in spec.training.items() if name not in FREE}
    sparse = None if spec.sparse is None else spec.sparse.name
    return canonical([spec.dataset.name, asdict(spec.model), spec.method.name, sparse, settings])


def _differing(specs: list[Spec]) -> tuple[str, ...]:
    """Names of options, as `debiasbench run --set` takes them, that are not the same in all."""
    values: dict[str, set[str]] = {}
    for spec in specs:
        options = {f"dataset.{name}": value for name, value in spec.dataset.options.items()}
        options |= spec.method.options
        options |= {f"train.{name}": value for name, value in spec.training.items()}
        if spec.sparse is not None:
            options |= {f"sparse.{name}": value for name, value in spec.sparse.options.items()}
        for name, value in options.items():
            values.setdefault(name, set()).add(canonical(value))
    return tuple(name for name, found in values.items() if len(found) > 1)


def _measured(
    empty: Forecast,
    engine: _Rehearsal,
    plugins: Plugins,
    data_root: Path,
    stand_ins: Mapping[str, StandIn],
) -> Forecast:
    spec = empty.spec
    task, loading, why = _task(spec, plugins, data_root, stand_ins)
    begun = now()
    rehearse(spec, task, plugins, engine)
    besides = now() - begun - engine.rehearsing
    return replace(
        empty,
        stages=tuple(engine.stages),
        around=loading + besides + _evaluation(engine.stages, task),
        memory=engine.peak_memory() + engine.kept,
        stand_in=why,
    )


def rehearse(spec: Spec, task: Task, plugins: Plugins, engine: Engine) -> None:
    """Let a method go through its stages with `engine`, which need not train them whole."""
    updater: Any = None if spec.sparse is None else instance(plugins.sparsifiers, spec.sparse)
    fit(
        task,
        instance(plugins.methods, spec.method),
        model=instance(plugins.models, spec.model),
        training=training_of(spec),
        seed=spec.seed,
        engine=engine,
        components=lambda: [] if updater is None else [Sparsify(updater)],
        owner=str(plugins.methods[spec.method.name]),
    )


def _task(
    spec: Spec, plugins: Plugins, data_root: Path, stand_ins: Mapping[str, StandIn]
) -> tuple[Task, float, str]:
    """Return the task, the seconds that a run takes to load it, and why it is random if it is."""
    name = spec.dataset.name
    dataset: Dataset = instance(plugins.datasets, spec.dataset)
    try:
        task_cache.load(name, dataset, data_root)  # the first run fills the cache
        begun = now()
        return task_cache.load(name, dataset, data_root), now() - begun, ""
    except DataError as error:
        if name not in stand_ins:
            raise
        return _random_task(stand_ins[name]), 0.0, str(error)


def _random_task(like: StandIn) -> Task:
    rng = torch.Generator().manual_seed(0)

    def split(n: int) -> Split:
        x = torch.randint(0, 256, (n, *like.input), dtype=torch.uint8, generator=rng)
        bias = torch.randint(like.biases, (n,), generator=rng)
        return Split(x, torch.arange(n) % like.classes, bias, like.biases)

    return Task(
        train=split(like.train),
        val=split(like.val),
        test=split(like.test),
        classes=tuple(map(str, range(like.classes))),
        biases=tuple(map(str, range(like.biases))),
        aligned=torch.eye(like.classes, like.biases, dtype=torch.bool),
    )


def _evaluation(stages: list[Stage], task: Task) -> float:
    """Seconds at the end of a run, at most: each rule may have kept weights of its own."""
    if not stages:
        return 0.0
    last = stages[-1]
    kept = len(RULES) if last.looks else 1
    return kept * last.look * (len(task.val) + len(task.test)) / len(task.val)


class _Rehearsal(Engine):
    """The engine, going only as far into each stage as it takes to time it."""

    def __init__(self, device: str, watcher: Progress) -> None:
        self._stopwatch = Stopwatch(watcher)
        super().__init__(device, self._stopwatch)
        self.stages: list[Stage] = []
        self.rehearsing = 0.0  # seconds in stages
        self.kept = 0  # bytes of the weights that selection rules would keep

    def train(
        self,
        objective: Objective,
        view: View,
        training: Training,
        *,
        name: str,
        subset: Tensor | None = None,
        validation: HeldOut,
        select: bool = True,
        **more: Any,
    ) -> Trained:
        """Begin a stage as it is, whole, and leave it once its steps are timed."""
        begun = now()
        stopwatch = self._stopwatch
        try:
            trained = super().train(
                objective, view, training,
                name=name, subset=subset, validation=validation, select=select, **more,
            )  # fmt: skip
        except _Enough:
            trained = Trained(objective)
        epoch = math.ceil((len(view) if subset is None else len(subset)) / training.batch_size)
        looks = (
            math.ceil(stopwatch.planned / epoch) if select or training.schedule == "plateau" else 0
        )
        step = stopwatch.seconds
        for _ in range(2):  # the first finds kernels and memory
            looked = now()
            self.predict(objective, validation.view)
        self.stages.append(Stage(name, stopwatch.planned, looks, step, now() - looked))
        if select:
            state = objective.state_dict().values()
            self.kept = max(self.kept, len(RULES) * sum(v.nbytes for v in state))
        self.rehearsing += now() - begun
        return trained

    def predict(self, objective: Objective, view: View) -> Tensor:
        """Predict; an epoch's end among the steps that are timed does not count as theirs."""
        begun = now()
        logits = super().predict(objective, view)
        self._stopwatch.paused += now() - begun
        return logits


class _Enough(Exception):  # noqa: N818 - nothing went wrong
    """The stage has been watched for long enough."""


class Stopwatch:
    """Times the steps of a stage that come after the warm-up; tells a watcher of all."""

    def __init__(self, watcher: Progress, steps: int = STEPS) -> None:
        self._watcher = watcher
        self.steps = steps  # timed at most
        self.planned = 0  # steps of the stage
        self.seconds = 0.0  # of one step
        self.paused = 0.0  # seconds of what is no step, so far

    def start(self, stage: str, steps: int) -> None:
        """A stage of `steps` steps begins."""
        self.planned, self._done = steps, 0
        self._first = min(WARM_UP, steps - 1)
        self._last = min(steps, self._first + self.steps)
        self._watcher.start(stage, self._last)
        self._begun = self._clock()

    def advance(self) -> None:
        """A step is done; raises `_Enough` after the last that is timed, unless it is the last."""
        self._done += 1
        self._watcher.advance()
        if self._done == self._first:
            self._begun = self._clock()
        if self._done == self._last:
            self.seconds = (self._clock() - self._begun) / (self._last - self._first)
            if self._last < self.planned:
                raise _Enough

    def finish(self) -> None:
        """The stage is over."""
        self._watcher.finish()

    def _clock(self) -> float:
        return now() - self.paused


def now() -> float:
    """Seconds by a clock that waits until the device has done what it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()

"""What runs will take: a few steps of each kind of run, timed, and multiplied."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import DataError, DebiasbenchError
from debiasbench.core.data import Split, Task
from debiasbench.measure.rehearsal import Rehearsal, StageTime
from debiasbench.measure.stopwatch import now
from debiasbench.records.selection import RULES
from debiasbench.runs.session import load_task
from debiasbench.training.device import peak_memory, reset_peak_memory
from debiasbench.training.placed import PlacedTask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from debiasbench.runs.session import Session
    from debiasbench.specs.spec import Spec
    from debiasbench.specs.suite import StandIn

FREE = {"lr", "momentum", "weight_decay"}  # settings that cost nothing


@dataclass(frozen=True)
class Forecast:
    """What runs of one kind will take, by a measurement of the first of them."""

    spec: Spec  # the one measured
    runs: int
    differ: tuple[str, ...]  # names of options in which they differ
    hardware: str
    stages: tuple[StageTime, ...] = ()
    around: float = 0.0  # seconds per run beside its stages: data, the method's rest, evaluation
    memory: int = 0  # bytes: see `debiasbench.training.device.peak_memory`
    stand_in: str = ""  # why images were random
    problem: str = ""  # why there is no forecast

    @property
    def seconds(self) -> float:
        """Seconds of one run, NaN without a forecast."""
        return math.nan if self.problem else self.around + sum(s.seconds for s in self.stages)


def forecast(
    session: Session, specs: Iterable[Spec], *, stand_ins: Mapping[str, StandIn] | None = None
) -> list[Forecast]:
    """Measure each kind of run on the session's device, and say what one run of it will take.

    Runs are of one kind if their data set, network with its options, method, sparsifier and
    training are the same, except learning rate, momentum and decay; the options in which they
    `differ` are assumed to cost nothing.
    `stand_ins`: by data set; where its files are missing, random images of that shape are used.
    What cannot be measured comes back with a `problem`.
    """
    kinds: dict[str, list[Spec]] = {}
    for spec in specs:
        kinds.setdefault(_kind(spec), []).append(spec)
    forecasts = []
    for alike in kinds.values():
        empty = Forecast(alike[0], len(alike), _differing(alike), session.execution.hardware)
        try:
            forecasts.append(_measured(empty, session, stand_ins or {}))
        except DebiasbenchError as error:
            forecasts.append(replace(empty, problem=str(error)))
    return forecasts


def _kind(spec: Spec) -> str:
    settings = {name: value for name, value in spec.training.items() if name not in FREE}
    sparse = None if spec.sparse is None else spec.sparse.name
    return canonical([spec.dataset.name, asdict(spec.model), spec.method.name, sparse, settings])


def _differing(specs: list[Spec]) -> tuple[str, ...]:
    """Return names of options, as `debiasbench run --set` takes them, in which specs differ."""
    values: dict[str, set[str]] = {}
    for spec in specs:
        options = {f"dataset.{name}": value for name, value in spec.dataset.options.items()}
        options |= spec.method.options
        options |= {f"train.{name}": value for name, value in spec.training.items()}
        if spec.sparse is not None:
            options |= {f"sparse.{name}": value for name, value in spec.sparse.options.items()}
        for name, value in options.items():
            values.setdefault(name, set()).add(canonical(value))
    return tuple(name for name, seen in values.items() if len(seen) > 1)


def _measured(empty: Forecast, session: Session, stand_ins: Mapping[str, StandIn]) -> Forecast:
    spec, execution = empty.spec, session.execution
    placed, loading, why = _task(session, spec, stand_ins)
    reset_peak_memory(execution.device)
    rehearsal = Rehearsal(execution, session.predictor(spec), session.progress)
    begun = now()
    session.rehearse(spec, rehearsal, placed)
    besides = now() - begun - rehearsal.seconds
    return replace(
        empty,
        stages=tuple(rehearsal.times),
        around=loading + besides + _evaluation(rehearsal.times, placed.task),
        memory=peak_memory(execution.device) + rehearsal.kept,
        stand_in=why,
    )


def _task(
    session: Session, spec: Spec, stand_ins: Mapping[str, StandIn]
) -> tuple[PlacedTask, float, str]:
    """Return the task, the seconds that a run takes to load it, and why it is random if it is."""
    name = spec.dataset.name
    try:
        placed = session.task(spec.dataset)  # the first run fills the cache
        begun = now()
        load_task(session.plugins, spec.dataset, session.data_root)
        return placed, now() - begun, ""
    except DataError as error:
        if name not in stand_ins:
            raise
        random = PlacedTask(_random_task(stand_ins[name]), session.execution.device)
        return random, 0.0, str(error)


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


def _evaluation(stages: list[StageTime], task: Task) -> float:
    """Return seconds at the end of a run, at most: each rule may have kept different weights."""
    if not stages:
        return 0.0
    last = stages[-1]
    kept = len(RULES) if last.looks else 1
    return kept * last.look * (len(task.val) + len(task.test)) / len(task.val)

"""Forecast the time of runs, from a few timed steps of each kind of run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import DataError, DebiasbenchError, Interrupted
from debiasbench.core.data import Split, Task
from debiasbench.core.inputs import readable
from debiasbench.core.texts import Texts
from debiasbench.measure.rehearsal import Rehearsal, StageTime
from debiasbench.measure.stopwatch import now
from debiasbench.records.selection import RULES
from debiasbench.runs.session import load_task
from debiasbench.specs.resolve import instance
from debiasbench.training.device import peak_memory, reset_peak_memory
from debiasbench.training.placed import PlacedTask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from debiasbench.core.inputs import Inputs
    from debiasbench.core.tokenizer import Tokenizer
    from debiasbench.runs.session import Session
    from debiasbench.specs.spec import Spec
    from debiasbench.specs.suite import StandIn

RECORD = 16_000  # bytes of a record without the values of its epochs
CURVES = 150  # bytes of the values of an epoch
FREE = {"lr", "momentum", "weight_decay"}  # settings that do not change the time of a run


@dataclass(frozen=True)
class Forecast:
    """The expected time and memory of runs of one kind, measured with the first of them."""

    spec: Spec  # the run that was measured
    runs: int
    differ: tuple[str, ...]  # names of the options in which the runs differ
    hardware: str
    stages: tuple[StageTime, ...] = ()
    around: float = 0.0  # seconds per run outside of stages: data, method, evaluation
    memory: int = 0  # bytes: see `debiasbench.training.device.peak_memory`
    stored: int = 0  # bytes of a record and its predictions, at most
    unfinished: int = 0  # bytes of the checkpoints of a run, at most
    finished: int = 0  # bytes of the finished stages of a run, at most
    stand_in: str = ""  # why other samples were used; empty if the data were used
    problem: str = ""  # why there is no forecast; empty if there is one

    @property
    def seconds(self) -> float:
        """Seconds of one run; NaN if there is no forecast."""
        return math.nan if self.problem else self.around + sum(s.seconds for s in self.stages)


def forecast(
    session: Session,
    specs: Iterable[Spec],
    *,
    stand_ins: Mapping[str, StandIn] | None = None,
    together: int = 1,
) -> list[Forecast]:
    """Measure each kind of run on the session's device; return a forecast for each kind.

    Runs are of one kind if their data set, network with its options, method, sparsifier and
    training settings are the same, except learning rate, momentum and weight decay. All runs of a
    kind are assumed to take the same time, whatever the options in which they `differ`.

    `stand_ins`: by data set. If files are missing, samples of these sizes are made. A kind
    that cannot be measured has a `problem`. `together`: runs that are trained at once; then times
    are the shares of one run.
    """
    kinds: dict[str, list[Spec]] = {}
    for spec in specs:
        kinds.setdefault(kind_of(spec), []).append(spec)
    forecasts = []
    for runs in kinds.values():
        empty = Forecast(runs[0], len(runs), _differing(runs), session.execution.hardware)
        try:
            forecasts.append(_measured(empty, session, stand_ins or {}, together))
        except Interrupted:
            raise
        except DebiasbenchError as error:
            forecasts.append(replace(empty, problem=str(error)))
    return forecasts


def kind_of(spec: Spec) -> str:
    """Return a text that is equal for runs that take about the same time."""
    settings = {name: value for name, value in spec.training.items() if name not in FREE}
    sparse = None if spec.sparse is None else spec.sparse.name
    return canonical([spec.dataset.name, asdict(spec.model), spec.method.name, sparse, settings])


def _differing(specs: list[Spec]) -> tuple[str, ...]:
    """Return the options in which specs differ, with names as in `debiasbench run --set`."""
    values: dict[str, set[str]] = {}
    for spec in specs:
        options = {f"dataset.{name}": value for name, value in spec.dataset.options.items()}
        options |= spec.method.options
        options |= {f"train.{name}": value for name, value in spec.training.items()}
        if spec.sparse is not None:
            options |= {f"sparse.{name}": value for name, value in spec.sparse.options.items()}
        for name, value in options.items():
            values.setdefault(name, set()).add(canonical(value))
    return tuple(name for name, distinct in values.items() if len(distinct) > 1)


def _measured(
    empty: Forecast, session: Session, stand_ins: Mapping[str, StandIn], together: int
) -> Forecast:
    spec, execution = empty.spec, session.execution
    placed, loading, reason = _task(session, spec, stand_ins)
    reset_peak_memory(execution.device)
    session.progress.begin(f"{spec.method.name} on {spec.dataset.name}")
    predictor = session.predictor(spec)
    rehearsal = Rehearsal(execution, predictor, session.progress, together=together)
    begun = now()
    session.rehearse(spec, rehearsal, placed)
    between_stages = now() - begun - rehearsal.seconds
    return replace(
        empty,
        stages=tuple(rehearsal.times),
        around=loading + between_stages + _evaluation(rehearsal.times, placed.task),
        memory=peak_memory(execution.device) + rehearsal.kept,
        stored=_stored(rehearsal.times, placed.task),
        unfinished=checkpoint_bytes(rehearsal.state),
        finished=len(rehearsal.times) * finished_bytes(rehearsal.state),
        stand_in=reason,
    )


def _task(
    session: Session, spec: Spec, stand_ins: Mapping[str, StandIn]
) -> tuple[PlacedTask, float, str]:
    """Return the task, the seconds to load it, and the reason if its samples are made."""
    name = spec.dataset.name
    try:
        placed = session.task(spec)  # this fills the cache, as the first run does
        begun = now()
        load_task(session.plugins, spec.dataset, session.data_root)
        return placed, now() - begun, ""
    except DataError as error:
        if name not in stand_ins:
            raise
        tokenizer = instance(session.plugins.models, spec.model).tokenizer()
        made = PlacedTask(_made_task(stand_ins[name], tokenizer), session.execution.device)
        return made, 0.0, str(error)


def _made_task(sizes: StandIn, tokenizer: Tokenizer | None) -> Task:
    """Return random images, or one text as often as needed: it is only tokenised once."""
    rng = torch.Generator().manual_seed(0)
    tokens: Mapping[str, Tensor] = {}
    if sizes.texts:
        sample = (" ".join(["word"] * sizes.words),) * sizes.texts
        if tokenizer is None:
            readable(Texts.of([sample]))  # raises `DataError`
        else:
            tokens = tokenizer([sample])

    def split(n: int) -> Split:
        x: Inputs = {k: v.repeat(n, *[1] * (v.dim() - 1)) for k, v in tokens.items()}
        if not tokens:
            x = torch.randint(0, 256, (n, *sizes.input), dtype=torch.uint8, generator=rng)
        bias = torch.randint(sizes.biases, (n,), generator=rng)
        return Split(x, torch.arange(n) % sizes.classes, bias, sizes.biases)

    return Task(
        train=split(sizes.train),
        val=split(sizes.val),
        test=split(sizes.test),
        classes=tuple(map(str, range(sizes.classes))),
        biases=tuple(map(str, range(sizes.biases))),
        aligned=torch.eye(sizes.classes, sizes.biases, dtype=torch.bool),
    )


def _stored(stages: list[StageTime], task: Task) -> int:
    """Return the largest size of a record and of the predictions beside it, in bytes.

    It is reached if each selection rule keeps different weights. A prediction takes a byte.
    """
    epochs = sum(stage.looks for stage in stages)
    labels = 3 + max(1, min(len(RULES), epochs))  # class, bias and group beside the predictions
    return RECORD + CURVES * epochs + labels * (len(task.val) + len(task.test))


def checkpoint_bytes(state: int) -> int:
    """Return the largest size of the checkpoints of a stage, in bytes, for weights of that size.

    There are at most two. Each has the weights, up to two averages of the optimizer, and weights
    for each selection rule.
    """
    return 2 * (3 + len(RULES)) * state


def finished_bytes(state: int) -> int:
    """Return the largest size of a finished stage on disk, in bytes, for weights of that size."""
    return (1 + len(RULES)) * state


def _evaluation(stages: list[StageTime], task: Task) -> float:
    """Return the largest time of the final evaluation, in seconds.

    It is reached if each selection rule keeps different weights.
    """
    if not stages:
        return 0.0
    last = stages[-1]
    evaluations = len(RULES) if last.looks else 1
    return evaluations * last.look * (len(task.val) + len(task.test)) / len(task.val)

"""What runs will take: hours, memory and disk, from records of similar runs or from rehearsals."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch

from debiasbench.measure.forecast import checkpoint_bytes, finished_bytes, forecast, kind_of
from debiasbench.records.held import files, weight
from debiasbench.training.stage_store import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from debiasbench.measure.forecast import Forecast
    from debiasbench.records.record import Result
    from debiasbench.runs.session import Session
    from debiasbench.specs.spec import Spec
    from debiasbench.specs.suite import StandIn


@dataclass(frozen=True)
class Item:
    """What similar runs will take.

    `seconds`: of one run; NaN if it is not known, and `problem` says why. `memory`: bytes of a
    process while it trains such a run. `stored`: bytes of its record and the files beside it.
    `unfinished`: bytes of its checkpoints, until it is done. `finished`: bytes of its stages, which
    are kept for other runs. `records`: number of records of
    similar runs on this hardware that the seconds come from; 0 for a rehearsal. `stand_in`: why
    other samples were used for it.
    """

    spec: Spec
    runs: int
    seconds: float
    memory: int
    stored: int
    unfinished: int
    finished: int
    records: int = 0
    stand_in: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Plan:
    """What the runs of a command will take.

    `processes`: that train at once. `together`: runs that each trains at once. `cores`: processes
    that can compute at once without slowing each other, or None if each has hardware of its own.
    """

    items: tuple[Item, ...]
    hardware: str
    processes: int = 1
    together: int = 1
    cores: int | None = None

    @property
    def runs(self) -> int:
        """Number of runs whose time is known."""
        return sum(item.runs for item in self.known)

    @property
    def known(self) -> tuple[Item, ...]:
        """The items whose time is known."""
        return tuple(item for item in self.items if not item.problem)

    @property
    def computing(self) -> float:
        """Seconds of all runs, one after the other."""
        return sum(item.runs * item.seconds for item in self.known)

    @property
    def seconds(self) -> float:
        """Seconds until the last run ends, if the processes share the runs evenly."""
        at_once = min(self.processes, self.cores or self.processes)
        longest = max((item.seconds for item in self.known), default=0.0)
        return max(longest * self.processes / at_once, self.computing / at_once)

    @property
    def memory(self) -> int:
        """Bytes that one process needs at most."""
        return max((item.memory for item in self.known), default=0)

    @property
    def stored(self) -> int:
        """Bytes of all records and the files beside them."""
        return sum(item.runs * item.stored for item in self.known)

    @property
    def unfinished(self) -> int:
        """Bytes of checkpoints and of finished stages at one time, at most."""
        each = max((item.unfinished for item in self.known), default=0)
        finished = sum(item.runs * item.finished for item in self.known)
        return each * self.processes * self.together + min(finished, LIMIT)


def plan(
    session: Session,
    left: Iterable[Spec],
    done: Iterable[tuple[Path, Result]] = (),
    *,
    stand_ins: Mapping[str, StandIn] | None = None,
    processes: int = 1,
    together: int = 1,
    shared: bool = True,
) -> Plan:
    """Plan the runs in `left` on the session's device.

    `done`: records and trials, with their paths. If some are of similar runs on the same hardware,
    the median of their seconds is the time of a run; otherwise some of its steps are taken here.
    `stand_ins`: see `forecast`. `shared`: whether the processes share the cores, as they do
    unless each has a device or a machine of its own.

    Raises no error for runs that cannot be measured; their item has a `problem`.
    """
    execution = session.execution
    similar: dict[str, list[tuple[Path, Result]]] = {}
    for path, record in done:
        provenance = record.provenance
        here = (provenance.hardware, provenance.device) == (
            execution.hardware,
            str(execution.device),
        )
        if here and record.cost is not None:
            similar.setdefault(kind_of(record.spec), []).append((path, record))
    measured: list[Spec] = []
    recorded: list[Spec] = []
    for spec in left:
        (recorded if kind_of(spec) in similar and together == 1 else measured).append(spec)
    items = [_recorded(specs, similar[kind]) for kind, specs in _kinds(recorded).items()]
    rehearsed = forecast(session, measured, stand_ins=stand_ins, together=together)
    cores = None
    if shared and execution.device.type == "cpu":
        cores = max(1, len(os.sched_getaffinity(0)) // torch.get_num_threads())
    return Plan(
        (*items, *map(_rehearsed, rehearsed)), execution.hardware, processes, together, cores
    )


def _kinds(specs: Iterable[Spec]) -> dict[str, list[Spec]]:
    kinds: dict[str, list[Spec]] = {}
    for spec in specs:
        kinds.setdefault(kind_of(spec), []).append(spec)
    return kinds


def _recorded(specs: Sequence[Spec], records: Sequence[tuple[Path, Result]]) -> Item:
    costs = [record.cost for _, record in records if record.cost is not None]
    weights = 4 * max(cost.parameters for cost in costs)
    return Item(
        specs[0],
        len(specs),
        seconds=median(cost.wall_seconds for cost in costs),
        memory=max(cost.peak_memory_bytes for cost in costs),
        stored=round(median(weight(files(path, record)) for path, record in records)),
        unfinished=checkpoint_bytes(weights),
        finished=max(len(cost.stages) for cost in costs) * finished_bytes(weights),
        records=len(records),
    )


def _rehearsed(found: Forecast) -> Item:
    return Item(
        found.spec,
        found.runs,
        seconds=found.seconds,
        memory=found.memory,
        stored=found.stored,
        unfinished=found.unfinished,
        finished=found.finished,
        stand_in=found.stand_in,
        problem=found.problem,
    )


def free_disk(folder: Path) -> int:
    """Return the free bytes where a folder is, or would be made."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free

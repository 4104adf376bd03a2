"""What a run tells trackers: its beginning, its stages and epochs, and its end."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import Interrupted
from debiasbench.common.foreign import first_line
from debiasbench.common.progress import Progress
from debiasbench.core.tracker import TrackedRun
from debiasbench.records.record import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from debiasbench.records.record import Record
    from debiasbench.specs.spec import Spec

    Tell = Callable[[str, Mapping[str, Any]], None]


class Told:
    """A run whose events are told; without trackers, nothing is done.

    `tell`: gets the name of an event and its arguments; None without trackers.
    """

    def __init__(self, tell: Tell | None, run: TrackedRun | None = None) -> None:
        self._tell, self._run = tell, run
        self._ended = False

    def tell(self, event: str, **arguments: Any) -> None:
        """Tell an event of the run."""
        if self._tell is not None and self._run is not None:
            self._tell(event, {"run": self._run.attempt, **arguments})

    def progress(self, shown: Progress) -> Progress:
        """Return what receives the progress of the run: `shown` gets it, and trackers are told."""
        return shown if self._tell is None else Passing(shown, self)

    def ended(self, record: Record) -> None:
        """Tell that the record is stored."""
        if self._tell is None:
            return
        self._ended = True
        data, failure = json.loads(to_json(record)), record.failure
        if failure is None:
            self.tell("run_ended", record=data)
        else:
            self.tell("run_failed", kind=failure.kind, message=failure.message, record=data)

    def broken_off(self, error: BaseException) -> None:
        """Tell that there will be no record, unless one is stored."""
        if self._ended:
            return
        if isinstance(error, Interrupted | KeyboardInterrupt | GeneratorExit):
            self.tell("run_interrupted")
        else:
            message = first_line(error).partition(": ")[2]
            self.tell("run_failed", kind=type(error).__name__, message=message, record=None)


@contextmanager
def following(tell: Tell | None, spec: Spec, file: Callable[[Spec], Path]) -> Iterator[Told]:
    """Tell that a run begins, and if the context ends by an error, how it ended."""
    if tell is None:
        yield Told(None)
        return
    run = TrackedRun(
        spec.id,
        token_hex(16),
        f"{spec.method.name} on {spec.dataset.name}",
        asdict(spec),
        str(file(spec)),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    told = Told(tell, run)
    tell("run_started", {"run": asdict(run)})
    try:
        yield told
    except BaseException as error:
        told.broken_off(error)
        raise


class Passing(Progress):
    """Passes progress on to a display, and tells trackers of stages and epochs."""

    def __init__(self, shown: Progress, told: Told) -> None:
        self._shown, self._told = shown, told
        self._stage = ""
        self._epochs = 0  # of the stage that were told

    def begin(self, title: str, metric: str | None = None) -> None:
        """Begin a run."""
        self._shown.begin(title, metric)

    def start(self, name: str, total: int | None) -> None:
        """Begin a stage."""
        self._shown.start(name, total)
        self._begin(name, total)

    def _begin(self, name: str, total: int | None) -> None:
        self._stage, self._epochs = name, 0
        self._told.tell("stage_started", stage=name, steps=total or 0)

    def advance(self, count: int = 1) -> None:
        """Count finished steps."""
        self._shown.advance(count)

    def epoch(self, epoch: int, epochs: int, values: Mapping[str, float]) -> None:
        """End an epoch."""
        self._shown.epoch(epoch, epochs, values)
        self._epoch(epoch, values)

    def _epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        self._epochs = epoch
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        self._told.tell("epoch_ended", stage=self._stage, epoch=epoch, values=rounded)

    def finish(self) -> None:
        """End the stage."""
        self._shown.finish()

    def found(self, name: str, total: int, curves: Mapping[str, Sequence[float]]) -> None:
        """Tell the epochs of a stage that were trained before."""
        self._shown.found(name, total, curves)
        if self._stage != name:
            self._begin(name, total)
        for number in range(self._epochs, len(curves.get("loss", ()))):
            self._epoch(number + 1, {key: curve[number] for key, curve in curves.items()})

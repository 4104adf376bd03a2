"""Trackers for tests: one writes what it hears into a file, others do what no tracker should."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from debiasbench import TrackedRun, Tracker, hookimpl

FILE = "TEST_TRACKER_FILE"


class Writing(Tracker):
    """Writes a line for each event."""

    @classmethod
    def wanted(cls) -> bool:
        return FILE in os.environ

    def _write(self, event: str, run: TrackedRun | None, **more: Any) -> None:
        line = {"event": event, "run": None if run is None else asdict(run), **more}
        with Path(os.environ[FILE]).open("a") as file:
            file.write(json.dumps({**line, "process": os.getpid()}) + "\n")

    def run_started(self, run: TrackedRun) -> None:
        self._write("run_started", run)

    def stage_started(self, run: TrackedRun, stage: str, steps: int) -> None:
        self._write("stage_started", run, stage=stage, steps=steps)

    def epoch_ended(
        self, run: TrackedRun, stage: str, epoch: int, values: Mapping[str, float]
    ) -> None:
        self._write("epoch_ended", run, stage=stage, epoch=epoch, values=values)

    def run_ended(self, run: TrackedRun, record: Mapping[str, Any]) -> None:
        self._write("run_ended", run, record=record, torch="torch" in sys.modules)

    def run_failed(
        self, run: TrackedRun, kind: str, message: str, record: Mapping[str, Any] | None
    ) -> None:
        self._write("run_failed", run, kind=kind, message=message, record=record)

    def run_interrupted(self, run: TrackedRun) -> None:
        self._write("run_interrupted", run)

    def close(self) -> None:
        self._write("close", None)


class Raising(Tracker):
    """Raises in every event."""

    def run_started(self, run: TrackedRun) -> None:
        print("printed by a tracker")
        raise SystemExit(3)

    def epoch_ended(self, run: TrackedRun, stage: str, epoch: int, values: Any) -> None:
        raise ValueError("again")


class Dying(Tracker):
    """Ends its process without a word."""

    def stage_started(self, run: TrackedRun, stage: str, steps: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Hanging(Tracker):
    """Never returns."""

    def run_started(self, run: TrackedRun) -> None:
        time.sleep(1000)


class Slow(Writing):
    """Takes its time for each event."""

    def epoch_ended(self, run: TrackedRun, stage: str, epoch: int, values: Any) -> None:
        time.sleep(0.6)
        super().epoch_ended(run, stage, epoch, values)


class Meddling(Tracker):
    """Changes everything that it can reach."""

    def __init__(self) -> None:
        import torch

        torch.manual_seed(1)
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)
        random.seed(1)
        os.environ["OMP_NUM_THREADS"] = "2"

    def run_started(self, run: TrackedRun) -> None:
        object.__setattr__(run, "spec", {})

    def epoch_ended(self, run: TrackedRun, stage: str, epoch: int, values: Any) -> None:
        values.clear()

    def run_ended(self, run: TrackedRun, record: Any) -> None:
        record.clear()


class Undecided(Tracker):
    """Raises when it is asked whether to listen."""

    @classmethod
    def wanted(cls) -> bool:
        raise SystemExit("no")


def offering(*trackers: type[Tracker]) -> object:
    """Make a plugin that registers trackers by the names of their classes."""

    class Plugin:
        @hookimpl
        def debiasbench_register_trackers(self, register: Callable[..., None]) -> None:
            for tracker in trackers:
                register(tracker.__name__.lower(), f"{__name__}:{tracker.__name__}")

    return Plugin()


def heard(file: Path) -> list[dict[str, Any]]:
    """Return what `Writing` wrote."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

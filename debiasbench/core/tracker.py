"""`Tracker`: listens to runs, for example to show their curves; it can change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrackedRun:
    """One attempt to run a spec.

    `id`: of the spec, and so of the record. `attempt`: a text that no other attempt has; a run that
    was interrupted and is continued is another attempt. `title`: such as "rest on digits". `spec`:
    as in the record file: "dataset", "model", "method", "training", "seed". `file`: where the
    record will be written. `started`: UTC, ISO 8601.
    """

    id: str
    attempt: str
    title: str
    spec: Mapping[str, Any]
    file: str
    started: str


@dataclass(eq=False)
class Tracker:
    """Listens to the runs of a command or session; override the methods that you need.

    A tracker lives in a process of its own, which ends after the last run. So it gets plain data,
    cannot change a run, and never lets one wait. What it prints goes to stderr. The first error of
    a tracker is reported there, and it gets the next events all the same.

    Each attempt tells its whole story: epochs that were trained before, by an attempt that was
    interrupted or for another run, are told again. Several runs may be told at once.
    """

    @classmethod
    def wanted(cls) -> bool:
        """Return whether to listen, for example whether an environment variable is set.

        Called once before the first run, in the process that trains; the module of the tracker
        should import its library elsewhere. If the answer is False, no process is started.
        """
        return True

    def run_started(self, run: TrackedRun) -> None:
        """Begin a run, which has no record yet."""

    def stage_started(self, run: TrackedRun, stage: str, steps: int) -> None:
        """Begin a stage of training of `steps` optimizer steps; a run may have several."""

    def epoch_ended(
        self, run: TrackedRun, stage: str, epoch: int, values: Mapping[str, float]
    ) -> None:
        """End an epoch of a stage, numbered from 1.

        `values`: the mean training loss as "loss"; if the stage is followed on the validation
        split, also "val_loss" and the accuracies in [0, 1] as "val_unbiased" and so on. They have
        six significant digits, as `curves` in the record.
        """

    def run_ended(self, run: TrackedRun, record: Mapping[str, Any]) -> None:
        """End a run: `record` is the content of its file, where NaN is None."""

    def run_failed(
        self, run: TrackedRun, kind: str, message: str, record: Mapping[str, Any] | None
    ) -> None:
        """End a run that failed with an error of a kind, such as "NonFiniteLoss".

        `record`: the content of its file; None if there is none, because it was not the training
        that failed.
        """

    def run_interrupted(self, run: TrackedRun) -> None:
        """End an attempt that was stopped, or whose process died; it may be continued later."""

    def close(self) -> None:
        """Finish, after the last run."""

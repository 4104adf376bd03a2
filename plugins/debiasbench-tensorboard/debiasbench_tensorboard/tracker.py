"""`TensorBoard`: a folder of event files for each run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debiasbench import TrackedRun, Tracker

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = "DEBIASBENCH_TENSORBOARD"


class TensorBoard(Tracker):
    """Writes curves, options and test accuracies of runs for TensorBoard.

    The environment variable DEBIASBENCH_TENSORBOARD names the folder for `tensorboard --logdir`;
    without it, nothing is written.
    """

    @classmethod
    def wanted(cls) -> bool:
        """Return whether the folder is named."""
        return bool(os.environ.get(FOLDER))

    def __init__(self) -> None:
        self._root = Path(os.environ[FOLDER])
        self._writers: dict[str, Any] = {}  # by attempt

    def run_started(self, run: TrackedRun) -> None:
        """Make a folder with the name of the record, and write the options of the run."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = self._folder(Path(run.file).stem)
        self._writers[run.attempt] = EventFileWriter(str(folder))
        self._write(run, hparams_pb(options(run.spec), trial_id=folder.name), 0)

    def epoch_ended(
        self, run: TrackedRun, stage: str, epoch: int, values: Mapping[str, float]
    ) -> None:
        """Write a point of each curve, such as `train/val_unbiased`."""
        for name, value in values.items():
            self._scalar(run, f"{stage}/{name}", value, epoch)
        self._writers[run.attempt].flush()

    def run_ended(self, run: TrackedRun, record: Mapping[str, Any]) -> None:
        """Write test accuracies, such as `test/val_unbiased/worst_group`, and the cost."""
        for rule, outcome in record["outcomes"].items():
            for name, value in outcome["test"]["metrics"].items():
                if value is not None:
                    self._scalar(run, f"test/{rule}/{name}", value, outcome["epoch"] or 0)
        for name, value in record["cost"].items():
            if isinstance(value, int | float):
                self._scalar(run, f"cost/{name}", value, 0)
        self._end(run, "finished")

    def run_failed(
        self, run: TrackedRun, kind: str, message: str, record: Mapping[str, Any] | None
    ) -> None:
        """Write why the run failed."""
        self._end(run, f"failed: {kind}: {message}")

    def run_interrupted(self, run: TrackedRun) -> None:
        """Write that the run was interrupted."""
        self._end(run, "interrupted")

    def _folder(self, name: str) -> Path:
        """Make a folder that no other attempt has."""
        for number in range(1, 10_000):
            folder = self._root / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            return folder
        raise FileExistsError(f"{self._root / name} has too many attempts")

    def _scalar(self, run: TrackedRun, tag: str, value: float, step: int) -> None:
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        self._write(run, scalar_pb(tag, value), step)

    def _write(self, run: TrackedRun, summary: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), step=step, summary=summary)
        self._writers[run.attempt].add_event(event)

    def _end(self, run: TrackedRun, how: str) -> None:
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._write(run, text_pb("run", f"{run.title}: {how}\n\nRecord: {run.file}"), 0)
        self._writers.pop(run.attempt).close()


def options(spec: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Return the choices of a spec by one name each, such as "method.density"."""
    found: dict[str, str | int | float | bool] = {"seed": spec["seed"]}
    for kind in ("dataset", "model", "method", "sparse"):
        if (part := spec[kind]) is not None:
            found[kind] = part["name"]
            found |= {f"{kind}.{name}": _plain(v) for name, v in part["options"].items()}
    return found | {f"train.{name}": _plain(v) for name, v in spec["training"].items()}


def _plain(value: object) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)

"""`MLflow`: a run of MLflow for each run, with its options, curves, accuracies and record."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from debiasbench import TrackedRun, Tracker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

URI, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
DEFAULT = "debiasbench"  # the experiment
MOST = 500  # characters of a parameter that every server stores
BATCH = 100  # parameters in a request


class MLflow(Tracker):
    """Logs options, curves, test accuracies and records of runs to MLflow.

    The environment variable MLFLOW_TRACKING_URI names the server or the folder, and
    MLFLOW_EXPERIMENT_NAME the experiment, by default "debiasbench". Without the first, nothing is
    logged.
    """

    @classmethod
    def wanted(cls) -> bool:
        """Return whether a server or a folder is named."""
        return bool(os.environ.get(URI))

    def __init__(self) -> None:
        self._client: Any = None
        self._experiment = ""
        self._ids: dict[str, str] = {}  # attempt -> run id

    def run_started(self, run: TrackedRun) -> None:
        """Create a run with the options as parameters."""
        from mlflow.entities import Param

        client = self._connected()
        tags = {
            "debiasbench.id": run.id,
            "debiasbench.attempt": run.attempt,
            "debiasbench.record": run.file,
        }
        made = client.create_run(
            self._experiment, run_name=f"{run.title}, seed {run.spec['seed']}", tags=tags
        )
        self._ids[run.attempt] = made.info.run_id
        parameters = [Param(name, str(value)[:MOST]) for name, value in options(run.spec)]
        for first in range(0, len(parameters), BATCH):
            client.log_batch(made.info.run_id, params=parameters[first : first + BATCH])

    def epoch_ended(
        self, run: TrackedRun, stage: str, epoch: int, values: Mapping[str, float]
    ) -> None:
        """Log a point of each curve, such as `train/val_unbiased`."""
        self._metrics(run, {f"{stage}/{name}": value for name, value in values.items()}, epoch)

    def run_ended(self, run: TrackedRun, record: Mapping[str, Any]) -> None:
        """Log test accuracies, such as `test/last/worst_group`, the cost, and the record."""
        for rule, outcome in record["outcomes"].items():
            found = outcome["test"]["metrics"]
            values = {f"test/{rule}/{n}": v for n, v in found.items() if v is not None}
            self._metrics(run, values, outcome["epoch"] or 0)
        cost = record["cost"]
        values = {f"cost/{n}": v for n, v in cost.items() if isinstance(v, int | float)}
        self._metrics(run, values, 0)
        self._connected().log_dict(self._ids[run.attempt], dict(record), "record.json")
        self._end(run, "FINISHED")

    def run_failed(
        self, run: TrackedRun, kind: str, message: str, record: Mapping[str, Any] | None
    ) -> None:
        """Say why the run failed, and log the record, if there is one."""
        client, own = self._connected(), self._ids[run.attempt]
        client.set_tag(own, "debiasbench.failure", f"{kind}: {message}"[:MOST])
        if record is not None:
            client.log_dict(own, dict(record), "record.json")
        self._end(run, "FAILED")

    def run_interrupted(self, run: TrackedRun) -> None:
        """Mark the run as killed."""
        self._end(run, "KILLED")

    def _connected(self) -> Any:
        """Return a client; the first call connects."""
        if self._client is None:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException

            client, name = MlflowClient(), os.environ.get(EXPERIMENT) or DEFAULT
            found = client.get_experiment_by_name(name)
            if found is None:
                try:
                    self._experiment = client.create_experiment(name)
                except MlflowException:  # another process has just made it
                    found = client.get_experiment_by_name(name)
                    if found is None:
                        raise
            if found is not None:
                self._experiment = found.experiment_id
            self._client = client
        return self._client

    def _metrics(self, run: TrackedRun, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, float(value), now, step) for name, value in values.items()]
        self._connected().log_batch(self._ids[run.attempt], metrics=metrics)

    def _end(self, run: TrackedRun, status: str) -> None:
        self._connected().set_terminated(self._ids.pop(run.attempt), status)


def options(spec: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield the choices of a spec by one name each, such as "method.density"."""
    yield "seed", spec["seed"]
    for kind in ("dataset", "model", "method", "sparse"):
        if (part := spec[kind]) is not None:
            yield kind, part["name"]
            for name, value in part["options"].items():
                yield f"{kind}.{name}", value
    for name, value in spec["training"].items():
        yield f"train.{name}", value

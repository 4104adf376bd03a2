"""Runs for tests, on the CPU: a session for each, and a method alone without a record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from debiasbench import Method, Model, Task
from debiasbench.core.settings import Training
from debiasbench.core.stage import Trained, Trainer
from debiasbench.records.store import Run
from debiasbench.runs import fit as fitting
from debiasbench.runs.session import Session
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.spec import Spec
from debiasbench.training.execution import Execution
from debiasbench.training.placed import PlacedTask
from debiasbench.training.predict import Predictor
from debiasbench.training.trainer import Sequential

# options with which a method takes few steps of its own, and settles on a small network
QUICK: dict[str, dict[str, Any]] = {
    "dcwp": {"pruning_iter": 20, "lr_prune": 0.1},
    "eiil": {"inference_steps": 20},
    "rest": {"density": 0.2},
}


def run(
    spec: Spec,
    plugins: Plugins,
    *,
    results: Path,
    data_root: Path,
    device: str = "cpu",
    overwrite: Any = "failed",
    keep_weights: bool = False,
    **session: Any,
) -> Run:
    with Session(plugins, results=results, data_root=data_root, device=device, **session) as one:
        return one.run(spec, overwrite=overwrite, keep_weights=keep_weights)


def fit_whole(
    task: Task,
    method: Method,
    *,
    model: Model,
    training: Training,
    seed: int = 0,
    trainer: Trainer | None = None,
    components: Callable[[], Sequence[Any]] = tuple,
    owner: str = "the method",
) -> fitting.Fitted:
    """Let a method train on the CPU; by default with `Sequential`."""
    execution = Execution.on("cpu")
    predictor = Predictor(execution, training.precision)
    return fitting.fit(
        PlacedTask(task, execution.device),
        method,
        model=model,
        training=training,
        seed=seed,
        trainer=trainer or Sequential(execution, predictor),
        predictor=predictor,
        components=components,
        owner=owner,
    )


def fit(task: Task, method: Method, **more: Any) -> Trained:
    return fit_whole(task, method, **more).trained

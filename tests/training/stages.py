"""Stages for tests: one linear layer on the toy task, trained by the trainer of runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from debiasbench.core.batches import Batches
from debiasbench.core.data import Task
from debiasbench.core.objective import CrossEntropy, Objective
from debiasbench.core.settings import Training
from debiasbench.core.stage import Stage, Trained, Trainer
from debiasbench.runs.fit import fit
from debiasbench.sparsity import Sparsify
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import instance, make_spec
from debiasbench.testing import toy_task
from debiasbench.training.execution import Execution
from debiasbench.training.placed import PlacedTask
from debiasbench.training.predict import Predictor
from debiasbench.training.trainer import Sequential
from tests.running import QUICK

CPU = torch.device("cpu")
FAST = Training(epochs=2, batch_size=16, lr=0.05)
ON_CPU = Execution.on("cpu")


class Flat(nn.Module):
    """One linear layer over the flattened sample, which begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 2)
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(x.flatten(1))


def make_stage(
    objective: Objective | None = None,
    task: Task | None = None,
    *,
    training: Training = FAST,
    steps: int | None = None,
    weights: torch.Tensor | None = None,
    subset: torch.Tensor | None = None,
    **more: Any,
) -> Stage:
    placed = PlacedTask(task or toy_task(), CPU)
    view = placed.view("train", "none")
    batches = Batches(len(view), training.batch_size, weights, subset)
    return Stage(
        objective=objective or CrossEntropy(Flat()),
        view=view,
        batches=batches,
        settings=training,
        steps=steps or training.epochs * len(batches),
        validation=placed.held_out("val"),
        **{"name": "train", "seed": 0, **more},
    )


def train(
    objective: Objective | None = None,
    task: Task | None = None,
    *,
    execution: Execution = ON_CPU,
    store: Any = None,
    **more: Any,
) -> Trained:
    stage = make_stage(objective, task, **more)
    trainer = Sequential(execution, Predictor(execution, stage.settings.precision), store=store)
    (trained,) = trainer.train([stage])
    return trained


def fit_toy(
    trainer: Trainer,
    execution: Execution,
    training: Training,
    method: str,
    sparse: str | None = None,
) -> None:
    """Let a builtin method train a small `mlp` on the toy task with a trainer."""
    plugins = Plugins([])
    options = {"density": 0.3} if sparse and sparse != "srigl" else {}
    spec = make_spec(
        plugins,
        method=method,
        method_options=QUICK.get(method, {}),
        model="mlp",
        model_options={"hidden": [16, 16]},
        sparse=sparse,
        sparse_options=options,
    )
    updater = None if spec.sparse is None else instance(plugins.sparsifiers, spec.sparse)
    fit(
        PlacedTask(toy_task(), CPU),
        instance(plugins.methods, spec.method),
        model=instance(plugins.models, spec.model),
        training=training,
        seed=0,
        trainer=trainer,
        predictor=Predictor(execution),
        components=lambda: [] if updater is None else [Sparsify(updater)],
    )


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(value, b[name]) for name, value in a.items())

"""Check a method by training it on toy tasks."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from debiasbench.common.options import spaces
from debiasbench.common.randomness import seeded
from debiasbench.core.data import Task
from debiasbench.core.model import Model
from debiasbench.core.modes import normalises
from debiasbench.core.settings import Training
from debiasbench.models.mlp import MLP
from debiasbench.runs.fit import fit
from debiasbench.sparsity import RigL, Sparsify
from debiasbench.testing.findings import check_space, warn_slow
from debiasbench.testing.toy import toy_task
from debiasbench.training.execution import Execution
from debiasbench.training.placed import PlacedTask
from debiasbench.training.predict import Predictor
from debiasbench.training.tape import Recomputed, Tape
from debiasbench.training.trainer import Sequential

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from debiasbench.core.component import ComponentLike
    from debiasbench.core.method import Method
    from debiasbench.core.stage import Stage, Trained, Trainer
    from debiasbench.runs.fit import Fitted
    from debiasbench.training.graph import Graph

TRAINING = Training(epochs=6, batch_size=16, lr=0.05)
SHORTER = 3  # epochs in which steps are replayed, or in which only errors are looked for
MODEL = MLP(hidden=(16, 16))


def check_method(
    method: Method, *, training: Training | None = None, model: Model | None = None
) -> None:
    """Check a method by training it seven times on toy tasks, which takes a few seconds.

    The method must learn. Equal seeds must give equal weights and inferences, also with other
    states of the global generators. Labels that it does not declare must not change them. It must
    work with 12 training samples in batches of one (two with BatchNorm), with an absent group, and
    with a sparse component. The search space of an option must be within the option's bounds.

    `training`: other settings than 6 epochs of SGD with batches of 16 samples and learning rate
    0.05, for a method that learns more slowly. `model`: another one than a small `mlp`.

    Warns if a GPU could not replay the training steps, which makes them slower, and says why.
    """
    check_space(lambda: spaces(type(method)))
    training, model = training or TRAINING, model or MODEL
    task, watching = toy_task(), _Watching()
    fit_ = partial(_fitted, method, model=model, training=training)
    first = fit_(task, watching=watching)
    _check_learns(first.trained, task)
    # a plateau schedule reads the validation loss, which depends on the classes
    changed = _without_undeclared_labels(method, task, classes=not watching.plateau)
    # one training for both requirements; if its result differs, two find out why
    if found := _difference(first, fit_(changed, global_seed=1)):
        seeds = (
            "Equal seeds gave different weights: draw random numbers from lab.generator(...), or "
            "from the global generators of torch, NumPy and Python, which are seeded in `fit`"
        )
        labels = (
            "Labels that the method does not declare changed the result. It declares "
            f"{method.supervision}"
        )
        if only := _difference(first, fit_(task, global_seed=1)):
            raise AssertionError(f"{seeds} (first difference: {only})")
        if only := _difference(first, fit_(changed)):
            raise AssertionError(f"{labels} (first difference: {only})")
        raise AssertionError(f"{seeds} (first difference: {found}, in one of two trainings)")
    short = replace(training, epochs=min(training.epochs, SHORTER))
    size = 1 + _normalises(model, task)
    few = f"12 training samples in batches of {size}"
    with _explained(few):
        small = replace(training, epochs=1, batch_size=size)
        _check_finite(fit_(toy_task(samples=12), training=small).trained, few)
    with _explained("a group without training samples") as absent:
        _check_finite(fit_(toy_task(absent=(1, 0)), training=short).trained, absent)
    if not first.trained.densities:  # a method that makes networks sparse cannot have a second mask
        with _explained("a sparse component") as component:
            sparse = fit_(
                task, training=short, components=lambda: [Sparsify(RigL(density=0.1))]
            ).trained
            _check_finite(sparse, component)
        assert _active(sparse) < _active(first.trained), (
            "The network that the method returned was trained without the sparse component: "
            "train it with lab.train, which adds components"
        )
    _warn_if_not_replayed(method, task, model, short)


@contextmanager
def _explained(condition: str) -> Iterator[str]:
    """Add to an error with which condition the method was trained."""
    try:
        yield condition
    except Exception as error:
        error.add_note(f"check_method trained it with {condition}")
        raise


def _fitted(
    method: Method,
    task: Task,
    *,
    model: Model,
    training: Training,
    global_seed: int = 0,
    components: Callable[[], Sequence[ComponentLike]] = tuple,
    graph: Callable[[], Graph] | None = None,
    watching: _Watching | None = None,
) -> Fitted:
    execution = replace(Execution.on("cpu"), graph=graph)
    predictor = Predictor(execution)
    trainer = Sequential(execution, predictor)
    with seeded(global_seed):
        return fit(
            PlacedTask(task, execution.device),
            method,
            model=model,
            training=training,
            seed=0,
            trainer=trainer if watching is None else watching.around(trainer),
            predictor=predictor,
            components=components,
            owner=type(method).__name__,
        )


class _Watching:
    """Trains by another trainer; `plateau`: whether a schedule has read the validation loss."""

    def __init__(self) -> None:
        self.plateau = False

    def around(self, trainer: Trainer) -> Trainer:
        """Train by `trainer` from now on."""
        self._trainer = trainer
        return self

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        """Train stages."""
        self.plateau |= any(stage.settings.schedule == "plateau" for stage in stages)
        return self._trainer.train(stages)


def _normalises(model: Model, task: Task) -> bool:
    """Return whether networks of a model have BatchNorm, which needs two samples or more."""
    with seeded(0):
        return normalises(model.build(task.shape).train())


def _warn_if_not_replayed(method: Method, task: Task, model: Model, training: Training) -> None:
    """Train with a graph that a CPU can replay, and compare it with computed steps."""
    name = type(method).__name__
    replayed = _fitted(method, task, model=model, training=training, graph=Tape)
    for cost in replayed.costs:
        if cost.eager:
            warn_slow(name, f"stage {cost.name!r}: {cost.eager}")
            return
    computed = _fitted(method, task, model=model, training=training, graph=Recomputed).trained
    for key, value in _weights(computed).items():
        if not torch.equal(value, _weights(replayed.trained)[key]):
            warn_slow(
                name,
                "replayed steps give other weights, so the Python code of a step changes in the "
                "course of the training, for example with the number of steps. Set `capturable` "
                "to None in the class of its objective, so that it is never replayed",
            )
            return


def _without_undeclared_labels(method: Method, task: Task, *, classes: bool) -> Task:
    """Change all labels that the method does not declare; a declared conflict label is kept.

    `classes`: whether the classes of the validation split are among them.
    """
    declared = method.supervision
    train, val = task.train, task.val
    if declared.train == "none":
        train = replace(train, bias=1 - train.bias)
    if not declared.sees_val_labels:
        # other numbers of samples in every group, and of conflicting samples
        place = torch.arange(len(val))
        y = (place % 5 == 0).long() if classes else val.y
        val = replace(val, y=y, bias=(place % 3 > 0).long())
    return replace(task, train=train, val=val)


def _check_learns(trained: Trained, task: Task) -> None:
    view = PlacedTask(task, torch.device("cpu")).view("test", "none")
    logits = Predictor(Execution.on("cpu")).predict(trained.objective, view)
    correct = logits.argmax(1) == task.test.y
    accuracy = correct[~task.conflict(task.test)].float().mean().item()
    assert accuracy >= 0.8, (
        f"The accuracy on aligned toy samples is {accuracy:.2f}, must be at least 0.8"
    )


def _difference(first: Fitted, second: Fitted) -> str:
    """Return the name of a weight, or of an inferred label, that differs; "" if there is none."""
    for name, value in _weights(first.trained).items():
        if not torch.equal(value, _weights(second.trained)[name]):
            return name
    mine, others = ({} if f.inferred is None else f.inferred.columns for f in (first, second))
    for name in sorted(mine.keys() | others.keys()):
        if not (name in mine and name in others and torch.equal(mine[name], others[name])):
            return f"{name} of lab.inferred"
    return ""


def _check_finite(trained: Trained, condition: str) -> None:
    for name, value in _weights(trained).items():
        assert bool(value.isfinite().all()), f"With {condition}, {name} became NaN or infinite"


def _active(trained: Trained) -> int:
    return sum(int((w != 0).sum()) for w in trained.objective.network.parameters())


def _weights(trained: Trained) -> dict[str, Tensor]:
    """Return the state of the network, without buffers of the loss, which may contain labels."""
    return dict(trained.objective.network.state_dict())

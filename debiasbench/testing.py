"""Checks for plugin authors: of plugins, methods, models, data sets, updaters and distributions.

For example, `check_method(MyMethod())` raises `AssertionError` if the method does not meet a
requirement; the message says which one, and what to do.
"""

from __future__ import annotations

import math
import warnings
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from debiasbench.common.errors import OptionError, PluginError
from debiasbench.common.options import parse, spaces
from debiasbench.common.randomness import seeded
from debiasbench.core.data import Dataset, Split, Task
from debiasbench.core.inputs import single
from debiasbench.core.model import Model, Shape
from debiasbench.core.modes import normalises
from debiasbench.core.prepare import Prepare
from debiasbench.core.settings import Training, check_search
from debiasbench.models.mlp import MLP
from debiasbench.runs.fit import fit
from debiasbench.sparsity import NotAttached, RigL, Sparsify, SparsityTooHigh, allocate
from debiasbench.sparsity.masks import digest
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.registry import BUILTIN as DEBIASBENCH
from debiasbench.specs.registry import Origin
from debiasbench.training.doubt import Doubts
from debiasbench.training.execution import Execution
from debiasbench.training.placed import PlacedTask
from debiasbench.training.predict import Predictor
from debiasbench.training.tape import Recomputed, Tape
from debiasbench.training.trainer import Sequential

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from debiasbench.core.component import ComponentLike
    from debiasbench.core.data import Augment
    from debiasbench.core.method import Method
    from debiasbench.core.stage import Stage, Trained, Trainer
    from debiasbench.runs.fit import Fitted
    from debiasbench.sparsity import SparseTraining, Updater
    from debiasbench.sparsity.distributions import Distribution
    from debiasbench.specs.registry import Entry, Registry
    from debiasbench.training.graph import Graph

TRAINING = Training(epochs=6, batch_size=16, lr=0.05)
SHORTER = 3  # epochs in which steps are replayed, or in which only errors are looked for
MODEL = MLP(hidden=(16, 16))
SHAPE = Shape(input=(3, 32, 32), classes=5)


def toy_task(
    *, samples: int = 160, ratio: float = 0.15, absent: tuple[int, int] | None = None
) -> Task:
    """Return a task with two classes and two bias values that any method learns in a second.

    The images are (N, 3, 8, 8) uint8. The class is the brighter half, the bias is red or blue.
    `samples`: size of the training split. `ratio`: fraction of conflicting training samples; the
    other splits have balanced groups. `absent`: a (class, bias) group without training and
    validation samples.
    """
    rng = torch.Generator().manual_seed(0)

    def split(n: int, conflicting: float, *, without: tuple[int, int] | None) -> Split:
        y = torch.arange(n) % 2
        bias = torch.where(torch.rand(n, generator=rng) < conflicting, 1 - y, y)
        bias[:4], y[:4] = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
        if without is not None:
            keep = (y != without[0]) | (bias != without[1])
            y, bias = y[keep], bias[keep]
        x = torch.randint(0, 60, (len(y), 3, 8, 8), generator=rng)
        for label in (0, 1):
            x[y == label, :, :, 4 * label : 4 * label + 4] += 60
            x[bias == label, 2 * label] += 90
        return Split(x.to(torch.uint8), y, bias, num_biases=2)

    return Task(
        train=split(samples, ratio, without=absent),
        val=split(40, 0.5, without=absent),
        test=split(200, 0.5, without=None),
        classes=("left", "right"),
        biases=("red", "blue"),
        aligned=torch.eye(2, dtype=torch.bool),
    )


def check_plugin(plugin: object, **names: Sequence[str]) -> None:
    """Check that a plugin registers names, and that the class of each name loads.

    `plugin`: what its entry point names, usually a module. `names`: by kind (`methods`, `datasets`,
    `models`, `sparsifiers`, `trackers`), names that it must register. The hooks must change no
    global setting of Python, NumPy or torch.
    """
    origin = Origin("this-plugin", "0")
    plugins = Plugins([(plugin, origin)])
    for broken in plugins.broken:
        assert broken.origin != origin, f"The {broken}"
    for warning in plugins.warnings:
        assert not warning.startswith(f"plugin '{origin}'"), f"The {warning}"
    for kind, expected in names.items():
        missing = [
            name for name in expected if f"{origin.prefix}:{name}" not in plugins.kinds()[kind]
        ]
        assert not missing, f"The plugin does not register {', '.join(missing)} among its {kind}"
    for registry in plugins.kinds().values():
        for entry in registry.values():
            if entry.origin == origin:
                _check_entry(entry, registry)


def _check_entry(entry: Entry[Any], registry: Registry[Any]) -> None:
    assert f"{DEBIASBENCH}:{entry.name}" not in registry, (
        f"{entry.kind} {entry.name!r} has the name of a builtin {entry.kind}"
    )
    try:
        entry.load()
    except PluginError as error:
        raise AssertionError(str(error)) from error
    assert entry.summary(), (
        f"The class of {entry.kind} {entry.name!r} has no docstring, whose first line "
        "`debiasbench list` shows"
    )


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
    _check_spaces(lambda: spaces(type(method)))
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


def _check_spaces(check: Callable[[], object]) -> None:
    try:
        check()
    except OptionError as error:
        raise AssertionError(str(error)) from error


@contextmanager
def _explained(condition: str) -> Iterator[str]:
    """Add to an error with which condition the method was trained."""
    try:
        yield condition
    except Exception as error:
        error.add_note(f"check_method trained it with {condition}")
        raise


def check_model(model: Model, shape: Shape = SHAPE) -> None:
    """Check that networks of a model fit `shape`, train, have a head and are reproducible.

    Warns if a GPU could not replay training steps with them, which makes these slower.
    """
    with seeded(0):
        network = model.build(shape)
    with seeded(0):
        again = model.build(shape)
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), (
            f"Equal seeds gave different initial values of {name}"
        )
    x = torch.rand(4, *shape.input, generator=torch.Generator().manual_seed(0))
    logits = network(x)
    assert logits.shape == (4, shape.classes), (
        f"The network returned shape {tuple(logits.shape)} for 4 samples, "
        f"must be (4, {shape.classes})"
    )
    logits.sum().backward()
    unused = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused, f"Parameters without gradient: {', '.join(unused)}"
    outputs = len(model.head(network).weight)
    assert outputs == shape.classes, (
        f"head() returned a layer with {outputs} outputs, must be {shape.classes}, "
        "the number of classes"
    )
    doubts = Doubts([[network]])
    for turn in range(3):
        network.zero_grad()
        step = partial(_forward_and_backward, network, x)
        if turn == 0:
            step()  # it may allocate what later ones use
        else:
            doubts.observe(0, (len(x),), step)
    if doubts.reason:
        _warn_slow(str(model), doubts.reason)


def _forward_and_backward(network: nn.Module, x: Tensor) -> None:
    network(x).sum().backward()


def check_dataset(dataset: Dataset, root: Path = Path("data")) -> Task:
    """Check that a data set loads the same valid task each time, and return the task.

    All files in `sources` must exist. The augmentation must keep the shape of images and draw
    random numbers only from the generator that it is given.
    """
    with seeded(0):
        task = dataset.load(root)
    with seeded(1):
        again = dataset.load(root)
    assert task.fingerprint() == again.fingerprint(), (
        "Two calls of load returned different data: seed every random choice with an option"
    )
    assert task.aligned.any(), "No (class, bias) pair is aligned"
    parse(Training, dataset.training, owner=f"data set {type(dataset).__name__}")
    _check_spaces(lambda: check_search(dataset.search))
    sources = dataset.sources(root)
    if missing := [str(source) for source in sources if not source.exists()]:
        raise AssertionError(f"sources returned {missing[0]}, which does not exist")
    assert not (sources and task.augment is not None), (
        "A task made from files is cached without `augment`: return it from augmentation() instead"
    )
    if (augment := task.augment or dataset.augmentation()) is not None:
        _check_augment(augment, task)
    return task


def _check_augment(augment: Augment, task: Task) -> None:
    x = Prepare(replace(task, mean=None, std=None))(single(task.train.x, "augment")[:8])
    assert isinstance(x, torch.Tensor)
    augmented = []
    for seed in (0, 1):
        with seeded(seed):
            augmented.append(augment(x.clone(), torch.Generator().manual_seed(0)))
    assert augmented[0].shape == x.shape, (
        f"augment changed the shape from {tuple(x.shape)} to {tuple(augmented[0].shape)}"
    )
    assert torch.equal(*augmented), (
        "augment depends on global generators: draw only from the generator that it is given"
    )


def check_updater(updater: Updater) -> None:
    """Check a sparse training algorithm by training a small network with it for 40 steps.

    Masks must fit the weights, and masked weights must stay 0. The final density must be the
    requested one. Nothing may depend on global generators. Training that resumes from a saved
    state, with new objects, must continue bit for bit.
    """
    first = _sparse_run(updater, global_seed=0)
    masks = first.masks.values()
    active = sum(int(mask.sum()) for mask in masks)
    requested = round(updater.density * sum(mask.numel() for mask in masks))
    assert first.settled, "The requested density is not reached within the training"
    if updater.pattern == "unstructured":
        has_density = active == requested
    else:
        has_density = active <= max(requested, sum(len(mask) for mask in masks))
    assert has_density, f"{active} weights are active at the end, {requested} were requested"
    again = _sparse_run(updater, global_seed=1)
    resumed = _sparse_run(updater, global_seed=2, restart_at=18)
    for other, message in (
        (again, "Masks depend on global generators: draw from layer.random()"),
        (resumed, "Resuming from a saved state gives other masks: keep no state in the updater"),
    ):
        assert digest(other.masks) == digest(first.masks), message


def check_distribution(distribution: Distribution) -> None:
    """Check that a distribution covers every layer, and that budgets add up to the density."""
    networks = (
        {"a": (64, 3, 4, 4), "b": (128, 64, 4, 4), "c": (256, 128, 4, 4), "d": (10, 256)},
        {"only": (10, 20)},
        {"wide": (1000, 2), "narrow": (2, 1000), "cube": (8, 8, 3, 3, 3)},
    )
    for shapes in networks:
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        for density in (0.01, 0.1, 0.5, 0.9, 1.0):
            wish = distribution(shapes, density).wish
            assert set(wish) == set(shapes), (
                f"The distribution has values for the layers {', '.join(sorted(wish))}, must have "
                f"them for {', '.join(sorted(shapes))}"
            )
            bad = [name for name, value in wish.items() if not 0 < value < math.inf]
            assert not bad, (
                f"The distribution has {wish[bad[0]]} for layer {bad[0]}, must be positive and "
                "finite"
            )
            try:
                budgets = allocate(shapes, density, distribution)
            except SparsityTooHigh:
                continue
            assert sum(budgets.values()) == round(density * sum(sizes.values()))
    full = allocate(networks[0], 1.0, distribution)
    assert full == {name: math.prod(shape) for name, shape in networks[0].items()}


def _sparse_run(
    updater: Updater, *, global_seed: int, restart_at: int | None = None
) -> SparseTraining:
    """Train a small network with an updater for 40 steps; return the sparse training."""

    def begin() -> tuple[nn.Module, torch.optim.Optimizer, SparseTraining]:
        with seeded(0):
            network = nn.Sequential(
                nn.Conv2d(4, 8, 3),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(8 * 16, 20),
                nn.ReLU(),
                nn.Linear(20, 4),
            )
        optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
        sparse = updater.attach(network, optimizer, total_steps=40, steps_per_epoch=10, seed=0)
        return network, optimizer, sparse

    network, optimizer, sparse = begin()
    rng = torch.Generator().manual_seed(0)
    with seeded(global_seed):
        for step in range(40):
            x, y = torch.rand(16, 4, 6, 6, generator=rng), torch.arange(16) % 4
            optimizer.zero_grad()
            loss: Tensor = nn.functional.cross_entropy(network(x), y)
            torch.autograd.backward(loss)
            optimizer.step()
            try:
                sparse.check()
            except NotAttached as error:
                raise AssertionError(f"{error} (step {step})") from error
            if step == restart_at:
                saved = network.state_dict(), optimizer.state_dict(), sparse.state_dict()
                network, optimizer, sparse = begin()
                network.load_state_dict(saved[0])
                optimizer.load_state_dict(saved[1])
                sparse.load_state_dict(saved[2])
    return sparse


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
            _warn_slow(name, f"stage {cost.name!r}: {cost.eager}")
            return
    computed = _fitted(method, task, model=model, training=training, graph=Recomputed).trained
    for key, value in _weights(computed).items():
        if not torch.equal(value, _weights(replayed.trained)[key]):
            _warn_slow(
                name,
                "replayed steps give other weights, so the Python code of a step changes in the "
                "course of the training, for example with the number of steps. Set `capturable` "
                "to None in the class of its objective, so that it is never replayed",
            )
            return


def _warn_slow(owner: str, reason: str) -> None:
    warnings.warn(
        f"{owner}: an NVIDIA GPU cannot replay its training steps as a graph, which makes small "
        f"networks several times slower ({reason})",
        stacklevel=3,
    )


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

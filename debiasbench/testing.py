"""Checks for plugin authors: what methods, models, data sets and updaters must hold to.

`check_method(MyMethod())` raises `AssertionError` saying which promise is broken.
"""

from __future__ import annotations

import math
import random
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from debiasbench.common.options import parse
from debiasbench.common.randomness import seeded
from debiasbench.core.data import Dataset, Split, Task
from debiasbench.core.inputs import single
from debiasbench.core.model import Model, Shape
from debiasbench.core.prepare import Prepare
from debiasbench.core.settings import Training
from debiasbench.models.mlp import MLP
from debiasbench.runs.fit import fit
from debiasbench.sparsity import NotAttached, RigL, Sparsify, SparsityTooHigh, allocate
from debiasbench.sparsity.masks import digest
from debiasbench.training.execution import Execution
from debiasbench.training.placed import PlacedTask
from debiasbench.training.predict import Predictor
from debiasbench.training.trainer import Sequential

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from debiasbench.core.component import Component
    from debiasbench.core.data import Augment
    from debiasbench.core.method import Method
    from debiasbench.core.stage import Trained
    from debiasbench.sparsity import SparseTraining, Updater
    from debiasbench.sparsity.distributions import Distribution

TRAINING = Training(epochs=6, batch_size=16, lr=0.05)
MODEL = MLP(hidden=(16, 16))
SHAPE = Shape(input=(3, 32, 32), classes=5)


def toy_task(
    *, samples: int = 160, ratio: float = 0.15, absent: tuple[int, int] | None = None
) -> Task:
    """Make a task of two classes and two biases that any method learns in a second.

    (N, 3, 8, 8) uint8 images: the class is the brighter half, the bias is red or blue.
    Training has `ratio` of conflicting samples, the other splits have balanced groups.
    `absent`: a (class, bias) group that training and validation lack.
    """
    rng = torch.Generator().manual_seed(0)

    def split(n: int, conflicting: float, *, lacks: tuple[int, int] | None) -> Split:
        y = torch.arange(n) % 2
        bias = torch.where(torch.rand(n, generator=rng) < conflicting, 1 - y, y)
        bias[:4], y[:4] = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
        if lacks is not None:
            keep = (y != lacks[0]) | (bias != lacks[1])
            y, bias = y[keep], bias[keep]
        x = torch.randint(0, 60, (len(y), 3, 8, 8), generator=rng)
        for i, (c, b) in enumerate(zip(y.tolist(), bias.tolist(), strict=True)):
            x[i, :, :, 4 * c : 4 * c + 4] += 60
            x[i, 2 * b] += 90
        return Split(x.to(torch.uint8), y, bias, num_biases=2)

    return Task(
        train=split(samples, ratio, lacks=absent),
        val=split(40, 0.5, lacks=absent),
        test=split(200, 0.5, lacks=None),
        classes=("left", "right"),
        biases=("red", "blue"),
        aligned=torch.eye(2, dtype=torch.bool),
    )


def check_method(method: Method) -> None:
    """Check a method by training it about ten times on toy tasks; a few seconds.

    It learns; equal seeds give equal weights whatever the global generators hold; labels that it
    does not declare do not change a bit of the result; a batch of one, an absent group and a
    sparse component are no obstacle.
    """
    task = toy_task()
    first = _fit(method, task)
    _check_learns(first, task)
    _check_same(
        first,
        _fit(method, task, global_seed=1),
        "Equal seeds gave different weights under another global seed: take randomness from "
        "lab.generator(...), not from numpy's or Python's global generator",
    )
    _check_same(
        first,
        _fit(method, _without_undeclared_labels(method, task)),
        f"Labels that are not declared changed the result; it declares {method.supervision}",
    )
    _check_finite(
        _fit(method, toy_task(samples=12), training=replace(TRAINING, epochs=1, batch_size=1)),
        "batches of one sample",
    )
    _check_finite(_fit(method, toy_task(absent=(1, 0))), "a group without training samples")
    if not first.densities:  # one that is sparse by itself takes no second mask
        sparse = _fit(method, task, components=lambda: [Sparsify(RigL(density=0.1))])
        _check_finite(sparse, "a sparse component")
        assert _active(sparse) < _active(first), (
            "A component did not reach the network that the method returned: "
            "train it with lab.train, which attaches components"
        )


def check_model(model: Model, shape: Shape = SHAPE) -> None:
    """Check that a model fits `shape`, can be trained, shows its head and is reproducible."""
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
        f"The network returned {tuple(logits.shape)} for 4 samples, must be (4, {shape.classes})"
    )
    logits.sum().backward()
    untouched = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not untouched, f"Parameters without gradient: {', '.join(untouched)}"
    head = model.head(network)
    assert head.out_features == shape.classes, (
        f"head() gives a layer of {head.out_features} outputs for {shape.classes} classes"
    )


def check_dataset(dataset: Dataset, root: Path = Path("data")) -> Task:
    """Check that a data set loads, alike each time, in the documented types; return its task.

    Also that files it says it reads are there, and that what changes training images keeps their
    shape and draws from its generator alone.
    """
    with _global_seeds(0):
        task = dataset.load(root)
    with _global_seeds(1):
        again = dataset.load(root)
    assert task.fingerprint() == again.fingerprint(), (
        "Two loads gave different bytes: seed every random choice by an option"
    )
    assert task.aligned.any(), "No (class, bias) pair is aligned"
    parse(Training, dataset.training, owner=f"data set {type(dataset).__name__}")
    sources = dataset.sources(root)
    if missing := [str(source) for source in sources if not source.exists()]:
        raise AssertionError(f"sources names {missing[0]}, which is not there")
    assert not (sources and task.augment is not None), (
        "A task made from files is cached without its `augment`: return that from augmentation()"
    )
    if (augment := task.augment or dataset.augmentation()) is not None:
        _check_augment(augment, task)
    return task


def _check_augment(augment: Augment, task: Task) -> None:
    x = Prepare(replace(task, mean=None, std=None))(single(task.train.x, "augment")[:8])
    assert isinstance(x, torch.Tensor)
    changed = []
    for seed in (0, 1):
        with _global_seeds(seed):
            changed.append(augment(x.clone(), torch.Generator().manual_seed(0)))
    assert changed[0].shape == x.shape, f"augment makes {tuple(changed[0].shape)} of {x.shape}"
    assert torch.equal(*changed), "augment depends on global generators: draw from the one given"


def check_updater(updater: Updater) -> None:
    """Check a sparse training algorithm by training a small network under it for 40 steps.

    Masks fit, weights off them stay 0, the density at the end is the one asked for, nothing
    depends on global generators, and a state taken up in fresh objects goes on bit for bit.
    """
    first = _sparse_run(updater, global_seed=0)
    kept = sum(int(mask.sum()) for mask in first.masks.values())
    most = round(updater.density * sum(mask.numel() for mask in first.masks.values()))
    assert first.settled, "The density is not reached within the training"
    free = updater.pattern == "unstructured"
    assert kept == most if free else kept <= max(most, sum(len(m) for m in first.masks.values())), (
        f"{kept} weights are active in the end, {most} were asked for"
    )
    again = _sparse_run(updater, global_seed=1)
    resumed = _sparse_run(updater, global_seed=2, restart_at=18)
    for other, otherwise in (
        (again, "Masks depend on global generators: draw from layer.random()"),
        (resumed, "Going on from a saved state gives other masks: keep nothing in the updater"),
    ):
        assert digest(other.masks) == digest(first.masks), otherwise


def check_distribution(distribution: Distribution) -> None:
    """Check that a distribution wishes for every layer, and that its budgets come out exact."""
    networks = (
        {"a": (64, 3, 4, 4), "b": (128, 64, 4, 4), "c": (256, 128, 4, 4), "d": (10, 256)},
        {"only": (10, 20)},
        {"wide": (1000, 2), "narrow": (2, 1000), "cube": (8, 8, 3, 3, 3)},
    )
    for shapes in networks:
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        for density in (0.01, 0.1, 0.5, 0.9, 1.0):
            wish = distribution(shapes, density).wish
            assert set(wish) == set(shapes), f"It wishes for {set(wish)}, not {set(shapes)}"
            bad = [name for name, value in wish.items() if not 0 < value < math.inf]
            assert not bad, f"Wishes must be positive and finite; {bad[0]}: {wish[bad[0]]}"
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
    """Train a small network under an updater for 40 steps; return the attached training."""

    def begin() -> tuple[nn.Module, torch.optim.Optimizer, SparseTraining]:
        with seeded(0):
            network = nn.Sequential(
                nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
                nn.Linear(8 * 16, 20), nn.ReLU(), nn.Linear(20, 4),
            )  # fmt: skip
        optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
        sparse = updater.attach(network, optimizer, total_steps=40, steps_per_epoch=10, seed=0)
        return network, optimizer, sparse

    network, optimizer, sparse = begin()
    rng = torch.Generator().manual_seed(0)
    with _global_seeds(global_seed):
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


def _fit(
    method: Method,
    task: Task,
    *,
    training: Training = TRAINING,
    global_seed: int = 0,
    components: Callable[[], Sequence[Component]] = tuple,
) -> Trained:
    execution = Execution.on("cpu")
    predictor = Predictor(execution)
    with _global_seeds(global_seed):
        fitted = fit(
            PlacedTask(task, execution.device),
            method,
            model=MODEL,
            training=training,
            seed=0,
            trainer=Sequential(execution, predictor),
            predictor=predictor,
            components=components,
            owner=type(method).__name__,
        )
    return fitted.trained


@contextmanager
def _global_seeds(seed: int) -> Iterator[None]:
    """Set every global generator, and put them back."""
    python, legacy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        with seeded(seed):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


def _without_undeclared_labels(method: Method, task: Task) -> Task:
    """Replace all labels that the method may not see; the conflict bit stays if it is declared."""
    declared = method.supervision
    train, val = task.train, task.val
    if declared.train == "none":
        train = replace(train, bias=1 - train.bias)
    if declared.val == "none":
        val = replace(val, bias=1 - val.bias)
    return replace(task, train=train, val=val)


def _check_learns(trained: Trained, task: Task) -> None:
    view = PlacedTask(task, torch.device("cpu")).view("test", "none")
    logits = Predictor(Execution.on("cpu")).predict(trained.objective, view)
    right = logits.argmax(1) == task.test.y
    aligned = right[~task.conflict(task.test)].float().mean().item()
    assert aligned >= 0.8, (
        f"It got {aligned:.2f} of the aligned toy samples right, at least 0.8 is due"
    )


def _check_same(first: Trained, second: Trained, otherwise: str) -> None:
    for name, value in _weights(first).items():
        assert torch.equal(value, _weights(second)[name]), f"{otherwise} (first at {name})"


def _check_finite(trained: Trained, condition: str) -> None:
    for name, value in _weights(trained).items():
        assert bool(value.isfinite().all()), f"With {condition}, {name} became NaN or infinite"


def _active(trained: Trained) -> int:
    return sum(int((w != 0).sum()) for w in trained.objective.network.parameters())


def _weights(trained: Trained) -> dict[str, Tensor]:
    """The network that predicts; buffers of a loss may hold labels that it may see."""
    return dict(trained.objective.network.state_dict())

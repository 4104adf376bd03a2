"""Checks for plugin authors: what every method, model and data set must hold to.

`check_method(MyMethod())` raises `AssertionError` saying which promise is broken.
"""

from __future__ import annotations

import random
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from debiasbench.data import Dataset, Split, Task
from debiasbench.engine import Engine
from debiasbench.model import Model, Shape
from debiasbench.models.mlp import MLP
from debiasbench.options import parse
from debiasbench.randomness import seeded
from debiasbench.run import fit
from debiasbench.sparsity import DynamicSparsity
from debiasbench.training import Training

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from debiasbench.component import Component
    from debiasbench.method import Method
    from debiasbench.stage import Trained

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
        sparse = _fit(method, task, components=lambda: [DynamicSparsity(density=0.1)])
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
    """Check that a data set loads, alike each time, in the documented types; return its task."""
    with _global_seeds(0):
        task = dataset.load(root)
    with _global_seeds(1):
        again = dataset.load(root)
    assert task.fingerprint() == again.fingerprint(), (
        "Two loads gave different bytes: seed every random choice by an option"
    )
    assert task.aligned.any(), "No (class, bias) pair is aligned"
    parse(Training, dataset.training, owner=f"data set {type(dataset).__name__}")
    return task


def _fit(
    method: Method,
    task: Task,
    *,
    training: Training = TRAINING,
    global_seed: int = 0,
    components: Callable[[], Sequence[Component]] = tuple,
) -> Trained:
    with _global_seeds(global_seed):
        return fit(
            task,
            method,
            model=MODEL,
            training=training,
            seed=0,
            engine=Engine("cpu"),
            components=components,
            owner=type(method).__name__,
        )


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
    x = task.test.x.float() / 255
    trained.objective.eval()
    with torch.no_grad():
        right = trained.objective.predict(x).argmax(1) == task.test.y
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

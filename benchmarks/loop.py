"""This engine against a bare loop written by hand: same model, batches and data, one process.

    python benchmarks/loop.py [--model cnn] [--batch-size 256] [--steps 40] [--rounds 7]

Both train from data in memory as uint8; the two alternate, and the ratio printed is the median
over rounds of (images/s of the engine) / (images/s of the bare loop). 1.00 means no overhead.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.data import Split, Task
from debiasbench.engine import EVAL_BATCH, Engine
from debiasbench.model import Shape
from debiasbench.objective import CrossEntropy
from debiasbench.plugins import Plugins
from debiasbench.sparsity import REST, Sparsify, Static, Updater
from debiasbench.training import Training
from debiasbench.views import HeldOut, View

SHAPE = Shape(input=(3, 28, 28), classes=10)


def images(n: int) -> Task:
    """Make a task of random images; arithmetic does not care what they show."""
    rng = torch.Generator().manual_seed(0)

    def split(size: int) -> Split:
        x = torch.randint(0, 256, (size, *SHAPE.input), generator=rng, dtype=torch.uint8)
        return Split(x, torch.arange(size) % 10, torch.arange(size) % 10, num_biases=10)

    names = tuple("0123456789")
    return Task(split(n), split(1000), split(10_000), names, names, torch.eye(10).bool())


def bare_training(network: nn.Module, x: Tensor, y: Tensor, batch_size: int, steps: int) -> None:
    """The loop one would write without a library."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    network.train()
    step = 0
    while step < steps:
        for index in torch.randperm(len(x)).split(batch_size):
            loss = F.cross_entropy(network(x[index].float().div_(255)), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step == steps:
                break


@torch.no_grad()
def bare_evaluation(network: nn.Module, x: Tensor) -> Tensor:
    """Forward passes alone."""
    network.eval()
    return torch.cat([network(part.float().div_(255)) for part in x.split(EVAL_BATCH)])


def compare(what: str, images: int, ours: Callable[[], object], bare: Callable[[], object],
            rounds: int) -> None:  # fmt: skip
    """Alternate the two and print the medians."""
    seconds: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        pair = []
        order = (ours, bare) if number % 2 else (bare, ours)
        for call in order:
            begun = time.perf_counter()
            call()
            pair.append(time.perf_counter() - begun)
        if number:  # the first round warms up
            seconds.append((pair[0], pair[1]) if order[0] is ours else (pair[1], pair[0]))
    ratio = median(b / o for o, b in seconds)
    spread = f"{min(b / o for o, b in seconds):.2f} to {max(b / o for o, b in seconds):.2f}"
    speed = images / median(o for o, _ in seconds)
    print(f"{what:34} {speed:9.0f} images/s   {ratio:.3f} of bare ({spread})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()

    entry, fixed = Plugins().models.find(args.model)
    make = entry.load()(**fixed)
    task = images(20 * args.batch_size)
    engine = Engine("cpu")
    view = View(task, task.train, {"y": task.train.y}, engine.device)
    training = Training(batch_size=args.batch_size, lr=0.01)
    network, other = make.build(SHAPE), make.build(SHAPE)

    def train(updater: Updater | None) -> None:
        engine.train(
            CrossEntropy(network), view, training, seed=0, name="train", steps=args.steps,
            components=[Sparsify(updater)] if updater else [],
            validation=validation, select=False,
        )  # fmt: skip

    validation = HeldOut.of(task, task.val, engine.device)
    test = HeldOut.of(task, task.test, engine.device)

    def bare() -> None:
        bare_training(other, task.train.x, task.train.y, args.batch_size, args.steps)

    print(
        f"{args.model}, batches of {args.batch_size}, {args.steps} steps, {args.rounds} rounds; "
        f"torch {torch.__version__}, Python {platform.python_version()}, {engine.hardware()}"
    )
    done = args.batch_size * args.steps
    compare("training", done, lambda: train(None), bare, args.rounds)
    for what, updater in (
        ("training, static masks", Static(density=0.05)),
        ("training, REST's updates", REST(density=0.05)),
    ):
        compare(what, done, partial(train, updater), bare, args.rounds)
    compare(
        "evaluation of 10,000 images", 10_000,
        lambda: engine.hits(
            engine.predict(CrossEntropy(network), test.view), test.view, task.num_groups
        ),
        lambda: bare_evaluation(other, task.test.x), args.rounds,
    )  # fmt: skip


if __name__ == "__main__":
    main()

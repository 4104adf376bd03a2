"""Cost of masking in a training step: between updates, at an update, and on average.

    python benchmarks/masking.py [--model cnn resnet18] [--batch-size 256] [--steps 120] [--every 8]
        [--device auto]

A dense and a sparse copy of one network take steps alternately in one process, on the accelerator
if there is one. The table shows ratios of median times to the dense step, and the median time of
the topology update alone. The average at an interval of n steps is
((n - 1) * step between updates + step at an update) / n.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from copy import deepcopy
from statistics import median

import torch
from torch import nn
from torch.nn import functional as F

from debiasbench.common.randomness import generator, seeded
from debiasbench.core.model import Shape
from debiasbench.sparsity import REST, SET, RigL, Updater
from debiasbench.specs.plugins import Plugins
from debiasbench.training.execution import Execution

UPDATERS: dict[str, type[Updater]] = {"REST": REST, "RigL": RigL, "SET": SET}
# steps between updates: the default of 5 % of a training, on digits and on CMNIST; and RigL's 100
INTERVALS = (16, 86, 100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", default=["cnn"])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--every", type=int, default=8, help="steps between the timed updates")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    execution = Execution.on(args.device)
    print(
        f"Batches of {args.batch_size}, {args.steps} steps; torch {torch.__version__}, Python "
        f"{platform.python_version()}, {execution.hardware}\n"
    )
    intervals = "".join(f" every {n} |" for n in INTERVALS)
    print(
        f"| network | updater | dense step, ms | between updates | at an update |{intervals}",
        end="",
    )
    print(" update, ms |\n|:--|:--|" + "--:|" * (4 + len(INTERVALS)))
    for model in args.model:
        measure(model, args, execution.device)


def measure(model: str, args: argparse.Namespace, device: torch.device) -> None:
    """Print the rows of a model."""
    shape = Shape(input=(3, 28, 28), classes=10)
    rng = generator(0, "images")
    x = torch.rand(args.batch_size, *shape.input, generator=rng).to(device)
    y = torch.randint(0, shape.classes, (args.batch_size,), generator=rng).to(device)
    entry, fixed = Plugins().models.find(model)
    with seeded(0):
        start = entry.load()(**fixed).build(shape).train().to(device)
    if device.type != "cpu":  # as in a run
        start = start.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    for name, updater in UPDATERS.items():
        dense, sparse = deepcopy(start), deepcopy(start)
        optimizers = [
            torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
            for network in (dense, sparse)
        ]
        attached = updater(density=0.05, every=str(args.every), stop=1.0).attach(
            sparse, optimizers[1], total_steps=args.steps + 1
        )
        updates: list[float] = []
        attached.update = timed(attached.update, updates, device)  # type: ignore[assignment, method-assign]
        plain: list[float] = []
        between: list[float] = []
        at_update: list[float] = []
        for number in range(args.steps):
            seconds = [0.0, 0.0]
            before = attached.updates
            for i in (0, 1) if number % 2 else (1, 0):
                seconds[i] = step((dense, sparse)[i], optimizers[i], x, y)
            if number > 3:  # the first steps warm up
                plain.append(seconds[0])
                (between if attached.updates == before else at_update).append(seconds[1])
        base, usual, update = median(plain), median(between), median(at_update)
        means = "".join(f" {((n - 1) * usual + update) / n / base:.3f} |" for n in INTERVALS)
        print(
            f"| {model} | {name} | {1000 * base:.2f} | {usual / base:.3f} | {update / base:.3f} |"
            f"{means} {1000 * median(updates[1:]):.2f} |",
            flush=True,
        )


def timed(
    update: Callable[[int], None], seconds: list[float], device: torch.device
) -> Callable[[int], None]:
    """Return `update`, which now also notes its seconds, until the device has done its work."""

    def timed_update(number: int) -> None:
        synchronize(device)
        start = time.perf_counter()
        update(number)
        synchronize(device)
        seconds.append(time.perf_counter() - start)

    return timed_update


def step(
    network: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> float:
    """Take one training step and return its seconds."""
    start = time.perf_counter()
    optimizer.zero_grad()
    F.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    synchronize(x.device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until a device has done its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


if __name__ == "__main__":
    main()

"""Cost of masking in a training step: between updates, at an update, and on average.

    python benchmarks/masking.py [--model cnn] [--batch-size 256] [--steps 120] [--every 8]

A dense and a sparse copy of one network take steps alternately in one process. The table shows
ratios of median times to the dense step. The average at an interval of n steps is
((n - 1) * step between updates + step at an update) / n.
"""

from __future__ import annotations

import argparse
import platform
import time
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
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--every", type=int, default=8, help="steps between the timed updates")
    args = parser.parse_args()

    shape = Shape(input=(3, 28, 28), classes=10)
    rng = generator(0, "images")
    x = torch.rand(args.batch_size, *shape.input, generator=rng)
    y = torch.randint(0, shape.classes, (args.batch_size,), generator=rng)
    entry, fixed = Plugins().models.find(args.model)
    with seeded(0):
        start = entry.load()(**fixed).build(shape).train()

    print(
        f"{args.model}, batches of {args.batch_size}, {args.steps} steps; torch "
        f"{torch.__version__}, Python {platform.python_version()}, {Execution.on('cpu').hardware}\n"
    )
    intervals = "".join(f" every {n} |" for n in INTERVALS)
    print(f"| updater | between updates | at an update |{intervals}")
    print("|:--|" + "--:|" * (2 + len(INTERVALS)))
    for name, updater in UPDATERS.items():
        dense, sparse = deepcopy(start), deepcopy(start)
        optimizers = [
            torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
            for network in (dense, sparse)
        ]
        attached = updater(density=0.05, every=str(args.every), stop=1.0).attach(
            sparse, optimizers[1], total_steps=args.steps + 1
        )
        plain, between, at_update = [], [], []
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
        print(f"| {name} | {usual / base:.3f} | {update / base:.3f} |{means}", flush=True)


def step(
    network: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> float:
    """Take one training step and return its seconds."""
    start = time.perf_counter()
    optimizer.zero_grad()
    F.cross_entropy(network(x), y).backward()
    optimizer.step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

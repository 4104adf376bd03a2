"""Parameters and CPU time that exact compaction saves after sparse training on real images.

    python benchmarks/compaction.py --data-root DATA [--models cnn resnet18] [--steps 400]

Trains on CMNIST (1 % conflicting; MNIST files in torchvision's layout under DATA), where
conflicting images are drawn 50 times as often, at each density with random growth (SET) and with
gradient growth (RigL). Then removes dead channels, and times both networks alternately in one
process. One seed each.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.common.randomness import generator, seeded
from debiasbench.core.data import Task
from debiasbench.sparsity import REST, SET, Updater, compact
from debiasbench.specs.plugins import Plugins
from debiasbench.training.execution import Execution

DENSITIES = (0.05, 0.01, 0.005, 0.002, 0.0005)
BATCH = 128
TIMED = 64  # images in a timed forward pass


def trained(network: nn.Module, updater: Updater, task: Task, steps: int) -> dict[str, Tensor]:
    """Train on reweighted samples; return the masks."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    sparse = updater.attach(network, optimizer, total_steps=steps, seed=0)
    weights = 1 + 49 * task.conflict(task.train).double()
    order = torch.multinomial(weights, steps * BATCH, True, generator=generator(0, "order"))
    network.train()
    images = task.train.x
    assert isinstance(images, torch.Tensor)
    for index in torch.split(order, BATCH):
        optimizer.zero_grad()
        x = images[index].float().div_(255)
        F.cross_entropy(network(x), task.train.y[index]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    sparse.detach()
    network.eval()
    return sparse.masks


@torch.no_grad()
def accuracy(network: nn.Module, task: Task) -> float:
    """Return the accuracy on the bias-balanced test split."""
    images, classes = task.test.x, task.test.y
    assert isinstance(images, torch.Tensor)
    correct = [
        network(x.float().div_(255)).argmax(1) == y
        for x, y in zip(torch.split(images, 1000), torch.split(classes, 1000), strict=True)
    ]
    return torch.cat(correct).float().mean().item()


@torch.no_grad()
def speed_up(
    before: nn.Module, after: nn.Module, x: Tensor, rounds: int = 15
) -> tuple[float, float]:
    """Return the median of (time before) / (time after), and the median milliseconds after."""
    pairs = []
    for _ in range(rounds + 2):
        pair = []
        for network in (before, after):
            start = time.perf_counter()
            network(x)
            pair.append(time.perf_counter() - start)
        pairs.append(pair)
    warm = pairs[2:]
    return median(a / b for a, b in warm), 1000 * median(b for _, b in warm)


@torch.no_grad()
def largest_error(before: nn.Module, after: nn.Module, x: Tensor) -> float:
    """Return the largest difference of logits at two image sizes, in float64."""
    other = F.interpolate(x.double(), scale_factor=1.5)
    return max(float((before(v) - after(v)).abs().max()) for v in (x.double(), other))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["cnn", "resnet18"])
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()

    plugins = Plugins()
    task = plugins.datasets["cmnist"].load()().load(args.data_root)
    assert isinstance(task.test.x, torch.Tensor)
    x = task.test.x[:TIMED].float().div_(255)
    print(
        f"{args.steps} steps of {BATCH} images; forward passes of {TIMED}; torch "
        f"{torch.__version__}, Python {platform.python_version()}, {Execution.on('cpu').hardware}\n"
    )
    print("| model | density | growth | unbiased % | parameters left | speed-up | ms | error |")
    print("|:--|--:|:--|--:|--:|--:|--:|--:|")
    for name in args.models:
        entry, fixed = plugins.models.find(name)
        for density in DENSITIES:
            for growth, updater in (
                ("SET", SET(density, stop=0.75, drop_fraction=0.5, anneal="cosine")),
                ("RigL", REST(density)),
            ):
                with seeded(0):
                    network = entry.load()(**fixed).build(task.shape)
                masks = trained(network, updater, task, args.steps)
                percent = 100 * accuracy(network, task)
                small = compact(network, masks, x[:2])
                left = small.parameters / small.original_parameters
                times, milliseconds = speed_up(network, small.model, x)
                network = network.double()  # folds constants in float64 too
                exact = compact(network, masks, x[:2].double()).model
                error = largest_error(network, exact, x[:8])
                print(
                    f"| {name} | {density:g} | {growth} | {percent:.1f} | {100 * left:.1f} % | "
                    f"{times:.2f} | {milliseconds:.2f} | {error:.0e} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

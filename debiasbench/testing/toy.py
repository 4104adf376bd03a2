"""A task on which any method learns in a second."""

from __future__ import annotations

import torch

from debiasbench.core.data import Split, Task


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

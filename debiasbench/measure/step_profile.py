"""A training step taken apart: how long data, passes, optimizer and sparsity take."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import nn

from debiasbench.measure.baselines import orders
from debiasbench.measure.forecast import WARM_UP, now
from debiasbench.sparsity import count_flops
from debiasbench.training.optimizers import make_optimizer
from debiasbench.training.running import Sampler, Stage, taking_part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.optim import Optimizer

    from debiasbench.measure.baselines import Request
    from debiasbench.training.precision import Arithmetic

PARTS = ("data", "forward", "backward", "optimizer", "sparsity")


def taken_apart(
    request: Request, how: Arithmetic, device: torch.device, steps: int
) -> tuple[dict[str, list[float]], float]:
    """Take `steps` of a stage with a halt after each part.

    Returns the seconds of each part, and of all together as "step", and the FLOPs of the
    objective's pass forward over a batch.
    """
    objective, components = request.fresh()
    how.lay_out(objective.train())
    extra = {name: values.to(device) for name, values in request.extra.items()}
    rng = torch.Generator(device).manual_seed(request.seed)
    optimizer = make_optimizer(objective.parameters(), request.training)
    scaler, clip_norm = how.scaler(device), request.training.clip_norm
    order = orders(request.pool, request.batch_size, request.weights)
    watch, total = _Watch(), WARM_UP + steps
    stage = Stage(
        request.name, objective, request.view, request.training, request.seed,
        Sampler(len(request.view), request.batch_size, request.weights, request.pool), total,
        extra, components, request.masks,
    )  # fmt: skip
    with how.applied():
        batch = request.view.batch(next(order).to(device), extra, rng)
        batch.x = how.laid_out(batch.x)
        with count_flops(objective) as flops, how.autocast(device):
            objective(batch)
        with (
            watch.on(optimizer, "optimizer"),
            taking_part(stage, optimizer),
            watch.on(optimizer, "sparsity"),
        ):
            for step, index in enumerate(islice(order, total)):
                watch.begin()
                batch = request.view.batch(index.to(device), extra, rng)
                batch.x = how.laid_out(batch.x)
                watch.take("data")
                with how.autocast(device):
                    loss = objective(batch)
                watch.take("forward")
                optimizer.zero_grad()
                watch.take("optimizer")
                scaler.scale(loss).backward()
                watch.take("backward")
                scaler.unscale_(optimizer)
                watch.take("optimizer")
                for component in components:
                    component.before_step(step)
                watch.take("sparsity")
                if clip_norm is not None:
                    nn.utils.clip_grad_norm_(objective.parameters(), clip_norm)
                scaler.step(optimizer)
                scaler.update()
                watch.take("optimizer")
                for component in components:
                    component.after_step(step)
                watch.take("sparsity")
                watch.end()
    return {part: seconds[WARM_UP:] for part, seconds in watch.seconds.items()}, flops.total


class _Watch:
    """Charges the time since it was last looked at to one part or another of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {part: [] for part in (*PARTS, "step")}
        self._begun = self._last = 0.0

    def begin(self) -> None:
        """Begin a step."""
        for part in PARTS:
            self.seconds[part].append(0.0)
        self._begun = self._last = now()

    def take(self, part: str) -> None:
        """Charge what has passed since to `part`."""
        at = now()
        self.seconds[part][-1] += at - self._last
        self._last = at

    def end(self) -> None:
        """End the step where its last part ended."""
        self.seconds["step"].append(self._last - self._begun)

    @contextmanager
    def on(self, optimizer: Optimizer, part: str) -> Iterator[None]:
        """Charge to `part` what has passed once the hooks that are there by now have run.

        Hooks run in the order they came in, so between two of these runs what came in between.
        """

        def look(*_: object) -> None:
            self.take(part)

        handles = [optimizer.register_step_pre_hook(look), optimizer.register_step_post_hook(look)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

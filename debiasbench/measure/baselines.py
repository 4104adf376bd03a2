"""The training loops that a benchmark compares: debiasbench, a bare loop, and a `DataLoader`."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.core.batches import Batches
from debiasbench.core.prepare import Prepare
from debiasbench.measure.image_files import Shuffled, orders
from debiasbench.measure.stopwatch import WARM_UP, Stopwatch, now
from debiasbench.training.optimizers import make_optimizer
from debiasbench.training.predict import Predictor
from debiasbench.training.trainer import Sequential

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.utils.data import DataLoader

    from debiasbench.core.data import Task
    from debiasbench.core.inputs import Inputs
    from debiasbench.core.stage import Stage
    from debiasbench.training.execution import Execution
    from debiasbench.training.placed import Placed

    Loaded = Iterator[tuple[Inputs, Tensor]]  # x: (B, ...), prepared; y: (B,)


def for_timing(stage: Stage) -> Stage:
    """Return a stage whose steps all cost the same: equal batches, and no validation."""
    batches = stage.batches
    schedule = "constant" if stage.settings.schedule == "plateau" else stage.settings.schedule
    if type(batches) is not Batches:  # the loss may need batches as the method makes them
        return replace(stage, settings=replace(stage.settings, schedule=schedule), select=False)
    pool = batches.pool
    if batches.weights is not None:  # keep the samples of largest weight, so that some are drawn
        pool = pool[batches.weights[pool].argsort(descending=True)]
    size = min(stage.settings.batch_size, len(pool))
    pool = pool[: len(pool) // size * size]
    return replace(
        stage,
        batches=Batches(len(stage.view), size, batches.weights, pool),
        settings=replace(stage.settings, batch_size=size, schedule=schedule),
        select=False,
    )


class Lap(NamedTuple):
    """The time and memory of a loop in one round."""

    seconds: float  # of the timed steps
    samples: int  # of all steps, including the warm-up
    memory: int | None  # peak bytes in addition to those in use before; None: unknown
    around: float  # seconds in addition to the timed steps


class Baselines:
    """The training loops of one stage on one device, timed by one clock."""

    def __init__(self, stage: Stage, task: Task, execution: Execution, clock: Stopwatch) -> None:
        self._stage, self._execution, self._clock = stage, execution, clock
        self._prepare = Prepare(task, execution.device)
        self._augment = task.augment
        self._numerics = replace(execution, compile="off").numerics(stage.settings.precision)

    def engine(self, steps: int) -> Lap:
        """Train as a run of debiasbench does."""
        execution = self._execution
        predictor = Predictor(execution, self._stage.settings.precision)
        trainer = Sequential(execution, predictor, progress=self._clock)

        def train() -> int:
            stage = replace(self._stage.copied(), steps=WARM_UP + steps)
            (trained,) = trainer.train([stage])
            return 0 if trained.cost is None else trained.cost.samples

        return self._lap(train)

    def bare(self, steps: int) -> Lap:
        """Train with a loop as one writes it without a library, on the same data in memory."""
        stage, device = self._stage, self._execution.device
        samples, y = cast("Placed", stage.view.samples), stage.view.labels["y"]
        order = orders(stage.batches.pool.to(device), stage.batches.batch_size)

        def batches() -> Loaded:
            rng = torch.Generator(device).manual_seed(stage.seed)
            for index in islice(order, WARM_UP + steps):
                x = samples.take(index, samples.width(index) if samples.longest else 0)
                yield self._prepare(x, rng), y[index]

        return self._lap(partial(self._train, batches(), steps))

    def loader(self, loader: DataLoader[Any], order: Shuffled, steps: int) -> Lap:
        """Train with the bare loop, on batches that a `DataLoader` reads from files in `order`."""
        stage, device = self._stage, self._execution.device
        order.steps = WARM_UP + steps

        def batches() -> Loaded:
            rng = torch.Generator(device).manual_seed(stage.seed)
            for x, y in loader:
                images = x.to(device, non_blocking=True)
                if self._augment is not None:  # after normalisation, which takes the same time
                    images = self._augment(images, rng)
                yield images, y.to(device, non_blocking=True)

        return self._lap(partial(self._train, batches(), steps))

    def _train(self, batches: Loaded, steps: int) -> int:
        """Take a step on each batch; return the number of samples in all batches."""
        stage, numerics, device = self._stage, self._numerics, self._execution.device
        network = copy.deepcopy(stage.objective.network).train()
        numerics.lay_out(network)
        optimizer = make_optimizer(network.parameters(), stage.settings)
        scaler, samples = numerics.scaler(device), 0
        self._clock.start(stage.name, WARM_UP + steps)
        with numerics.applied():
            for x, y in batches:
                with numerics.autocast(device):
                    loss: Any = F.cross_entropy(network(numerics.laid_out(x)), y)
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                if stage.settings.clip_norm is not None:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(network.parameters(), stage.settings.clip_norm)
                scaler.step(optimizer)
                scaler.update()
                samples += len(y)
                self._clock.advance()
        self._clock.finish()
        return samples

    def _lap(self, train: Callable[[], int]) -> Lap:
        """Time a training function, and measure its memory if the device counts allocations."""
        device = self._execution.device
        module: Any = torch.get_device_module(device)
        peak = getattr(module, "max_memory_allocated", None)
        before = 0
        if peak is not None:
            before = module.memory_allocated(device)
            module.reset_peak_memory_stats(device)
        begun = now()
        samples = train()
        total, timed = now() - begun, self._clock.seconds
        return Lap(timed, samples, None if peak is None else peak(device) - before, total - timed)

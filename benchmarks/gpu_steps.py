"""Times of single steps for `gpu.py`: debiasbench's, one written by hand, and topology updates."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from debiasbench import Session
from debiasbench.common.randomness import seeded
from debiasbench.core.model import Shape
from debiasbench.core.stage import Stage
from debiasbench.measure.baselines import for_timing
from debiasbench.measure.listening import Listening
from debiasbench.measure.pace import seconds_per_step
from debiasbench.measure.stopwatch import now
from debiasbench.sparsity import REST, SparseTraining, count_flops
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.spec import Spec
from debiasbench.training.execution import Execution
from debiasbench.training.graph import CudaGraph
from debiasbench.training.optimizers import make_optimizer

ROUNDS, SECONDS = 3, 0.5
ROWS = 8192  # of the square matrices whose product is the peak


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step, in each round; `share_of_peak`: of the speed of matrix products."""

    seconds: list[float] = field(default_factory=list)
    share_of_peak: float = 0.0


def engine_step(session: Session, spec: Spec) -> StepTime:
    """Time the steps of debiasbench; replayed if the session has graphs."""
    stage = _stage(session, spec)
    execution, predictor = session.execution, session.predictor(spec)
    seconds = [
        seconds_per_step(
            [replace(stage.copied(), steps=100_000)], execution, predictor, seconds=SECONDS
        )
        for _ in range(ROUNDS)
    ]
    objective = copy.deepcopy(stage.objective).to(execution.device)
    index = torch.arange(2, device=execution.device)
    with count_flops(objective) as counted:
        objective.predict(stage.view.inputs(index))
    flops = 3 * counted.total / 2 * stage.batches.batch_size
    return StepTime(seconds, flops / median(seconds) / _peak(execution))


def bare_step(session: Session, spec: Spec) -> StepTime:
    """Time a whole step that is written by hand, as one graph where the device has graphs."""
    stage, execution = _stage(session, spec), session.execution
    device, numerics = execution.device, execution.numerics(stage.settings.precision)
    network = copy.deepcopy(stage.objective.network).to(device).train()
    numerics.lay_out(network)
    optimizer = make_optimizer(network.parameters(), stage.settings, tensor_lr=numerics.graphs)
    samples, y = stage.view.samples, stage.view.labels["y"]
    index = stage.batches.pool[: stage.batches.batch_size].to(device)

    def step() -> None:
        x: Tensor = samples.take(index)  # type: ignore[assignment]
        optimizer.zero_grad()
        with numerics.autocast(device):
            inputs = x.float().div_(255).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(network(inputs), y[index])
        torch.autograd.backward(loss)
        optimizer.step()

    seconds = []
    with numerics.applied():
        for _ in range(3):
            step()
        call: Callable[[], object] = step
        if execution.graph is CudaGraph:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            call = graph.replay
        begun = now()
        call()
        count = max(5, int(SECONDS / (now() - begun)))  # launches do not wait for the device
        for _ in range(ROUNDS):
            begun = now()
            for _ in range(count):
                call()
            seconds.append((now() - begun) / count)
    return StepTime(seconds)


def _stage(session: Session, spec: Spec) -> Stage:
    listening = Listening()
    session.rehearse(spec, listening)
    return for_timing(listening.stages[-1])


def _peak(execution: Execution) -> float:
    """Return the FLOPs per second of large products in half precision, or in float32 on a CPU."""
    on_cpu = execution.device.type == "cpu"
    rows, dtype = (512, torch.float32) if on_cpu else (ROWS, torch.bfloat16)
    a, b = torch.rand(2, rows, rows, device=execution.device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        begun = now()
        torch.mm(a, b)
        best = min(best, now() - begun)
    return float(2 * rows**3 / best)


@dataclass(frozen=True)
class UpdateTime:
    """Median seconds of a topology update of a network.

    `waits`: how often an update waits for the device; None where the device does not say it.
    """

    model: str
    seconds: float
    waits: int | None


def update_time(plugins: Plugins, model: str, steps: int) -> UpdateTime:
    """Time the topology updates of REST."""
    execution = Execution.on()
    device = execution.device
    entry, fixed = plugins.models.find(model)
    with seeded(0):
        network = entry.load()(**fixed).build(Shape((3, 32, 32), 10)).to(device)
    execution.numerics().lay_out(network)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)
    sparse = SparseTraining(
        REST(density=0.05, every="1"),
        network,
        optimizer,
        total_steps=2 * steps + 8,
        steps_per_epoch=None,
        seed=0,
        hooks=False,
    )
    x, y = torch.rand(32, 3, 32, 32, device=device), torch.arange(32, device=device) % 10
    seconds: list[float] = []
    waits = None
    for step in range(steps):
        optimizer.zero_grad()
        loss: Tensor = F.cross_entropy(network(x), y)
        torch.autograd.backward(loss)
        sparse.due(step)
        sparse.constrain_gradients(update_follows=True)
        optimizer.step()
        begun = now()
        with _counted_waits(device) as counted:
            sparse.update(step)
        seconds.append(now() - begun)
        waits = None if counted is None else len(counted)
    return UpdateTime(model, median(seconds), waits)


@contextmanager
def _counted_waits(device: torch.device) -> Iterator[list[warnings.WarningMessage] | None]:
    """Yield a list with an item for each wait for a CUDA device inside the context."""
    if device.type != "cuda":
        yield None
        return
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")

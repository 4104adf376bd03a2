"""Benchmark the training speed: debiasbench, a bare loop, and a `DataLoader` over files."""

from __future__ import annotations

import platform
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import cycle, permutations
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from debiasbench.common.errors import OptionError
from debiasbench.common.processes import cores
from debiasbench.common.randomness import seeded
from debiasbench.common.wording import counted
from debiasbench.core.data import Split
from debiasbench.core.inputs import mapped, readable
from debiasbench.core.prepare import Prepare
from debiasbench.measure.baselines import Baselines, for_timing
from debiasbench.measure.image_files import is_image, loading
from debiasbench.measure.listening import Listening
from debiasbench.measure.step_profile import step_profile
from debiasbench.measure.stopwatch import Stopwatch, now
from debiasbench.training.placed import PlacedTask
from debiasbench.training.predict import BATCH, Predictor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from debiasbench.common.progress import Progress
    from debiasbench.core.data import Task
    from debiasbench.core.objective import Objective
    from debiasbench.core.stage import Stage
    from debiasbench.runs.session import Session
    from debiasbench.specs.spec import Spec
    from debiasbench.training.execution import Execution
    from debiasbench.training.precision import Numerics

T = TypeVar("T")

FILES = 2000  # largest number of images that are written for the DataLoader
WORKERS = 4  # largest default number of processes that read them
EVALUATED = 4 * BATCH  # largest number of test samples that are predicted
PRODUCTS = (1024, 2048)  # rows of the square matrices that are multiplied
LARGE_PRODUCTS = (4096, 8192)  # the same on an accelerator
REPEATS = 3  # products of each size in each of three measurements


@dataclass(frozen=True)
class Bench:
    """The raw measurements of a benchmark, as `--json` writes them; the report is computed from it.

    The three training loops are called "engine", "bare" and, for image data, "loader". The i-th
    values of two loops are from the same round, so ratios are computed in pairs.

    "engine" is debiasbench: it trains the last stage of the method. "bare" trains the same network
    with plain cross-entropy, the same optimizer and numerics, and the same data in memory. It draws
    every sample equally often and has no masks, so the ratio shows the cost of the method.
    "loader" takes the steps of "bare" on batches of PNG files, which Pillow opens and torchvision
    converts to tensors. Batches that its processes read before the clock starts are an advantage
    for "loader". Each loop takes `WARM_UP` steps before the clock starts. `around` is the time that
    "engine" takes for these steps, and to start and to end the stage.

    `split` is measured in additional steps that wait for the device after each part, so the sum of
    the parts is more than an uninterrupted step. The time of components is "sparsity".

    `memory` is only known if the device counts allocations, which a CPU does not.
    """

    spec: dict[str, Any]  # of the run that the stage belongs to: see `debiasbench.Spec`
    stage: str  # the name of the stage in the method
    batch_size: int  # samples per step; less than in the spec if there are fewer samples
    steps: int  # timed steps per round
    training: dict[str, list[float]]  # loop -> seconds of the timed steps, each round
    samples: dict[str, int]  # loop -> samples per round, including the warm-up
    around: list[float]  # seconds of "engine" in addition to the timed steps, each round
    memory: dict[str, list[int]]  # loop -> peak bytes in addition to the data, each round
    evaluation: dict[str, list[float]]  # "engine", "bare" -> seconds, each round
    evaluated: int  # samples of the test split
    split: dict[str, list[float]]  # part, or "step" for the whole step -> seconds, each step
    flops: float  # of the objective's dense forward pass on a batch; a multiply-add is two
    products: dict[str, list[float]]  # rows of square matrices -> seconds of each product
    precision: str  # of products and convolutions: see `Training`
    compile: str  # see `Numerics`; only "engine" is compiled
    deterministic: bool
    workers: int  # processes of the DataLoader
    hardware: str
    torch: str
    python: str
    notes: list[str] = field(default_factory=list)

    def ratios(self, baseline: str) -> list[float]:
        """Return the speed of debiasbench divided by that of a loop, for each round of training."""
        return _ratios(self.training, baseline)

    def evaluation_ratios(self) -> list[float]:
        """Return the speed of evaluation divided by that of bare forward passes, by round."""
        return _ratios(self.evaluation, "bare")

    def images_per_second(self, baseline: str) -> float:
        """Return the median speed of a training loop over all rounds."""
        return self.steps * self.batch_size / median(self.training[baseline])

    def flops_per_second(self) -> float:
        """Return the FLOPs per second of debiasbench; a step counts as 3 dense forward passes."""
        return 3 * self.flops * self.steps / median(self.training["engine"])

    def peak(self) -> tuple[int, float]:
        """Return the matrix size with the fastest products, and their FLOPs per second."""
        speeds = {int(n): 2 * int(n) ** 3 / min(seconds) for n, seconds in self.products.items()}
        return max(speeds.items(), key=lambda pair: pair[1])


def _ratios(seconds: Mapping[str, Sequence[float]], baseline: str) -> list[float]:
    return [b / a for a, b in zip(seconds["engine"], seconds[baseline], strict=True)]


def bench(
    session: Session,
    spec: Spec,
    *,
    steps: int = 40,
    rounds: int = 7,
    workers: int | None = None,
) -> Bench:
    """Measure the last training stage of a spec's method, and evaluation, on this machine.

    In each round, all loops train in this process, one after the other, and always from the same
    weights. A short first round is not counted. The bare loop is never compiled.

    `steps`: timed steps per round. `workers`: processes of the DataLoader; by default one per core,
    but at most `WORKERS`. Raises the errors of `Session.run`.
    """
    execution, progress = session.execution, session.progress
    if workers is None:
        workers = min(cores(), WORKERS)
    task = session.task(spec).task
    with seeded(spec.seed), ExitStack() as stack:
        stage, notes = _measured_stage(session, spec)
        timed = Baselines(stage, task, execution, Stopwatch())
        baselines = {"engine": timed.engine, "bare": timed.bare}
        if is_image(task):
            files = min(FILES, len(stage.batches.pool))
            loader = stack.enter_context(loading(stage, task, files, workers))
            baselines["loader"] = partial(timed.loader, *loader)
            notes.append(
                f"The DataLoader reads {counted(files, 'PNG file')} with {workers} processes; the "
                "files are in the memory of the operating system."
            )
        else:
            notes.append("No DataLoader: samples are not 8-bit images of one or three channels.")
        numerics = replace(execution, compile="off").numerics(stage.settings.precision)
        products = _Products(stage.objective, numerics, execution.device)
        products.compute()
        laps = _in_turn(baselines, "training", steps, rounds, progress)
        products.compute()  # three times in total, since the speed of a shared machine varies
        view_size, readers = _evaluation(stage, task, execution)
        predicted = _in_turn(readers, "evaluation", steps, rounds, progress)
        split, flops = step_profile(stage, execution, steps)
        products.compute()
    return Bench(
        spec=asdict(spec),
        stage=stage.name,
        batch_size=stage.batches.batch_size,
        steps=steps,
        training={name: [lap.seconds for lap in loop_laps] for name, loop_laps in laps.items()},
        samples={name: loop_laps[0].samples for name, loop_laps in laps.items()},
        around=[lap.around for lap in laps["engine"]],
        memory={
            name: peaks
            for name, loop_laps in laps.items()
            if (peaks := [lap.memory for lap in loop_laps if lap.memory is not None])
        },
        evaluation=predicted,
        evaluated=view_size,
        split=split,
        flops=flops,
        products=products.seconds,
        precision=numerics.precision,
        compile=execution.compile,
        deterministic=execution.deterministic,
        workers=workers,
        hardware=execution.hardware,
        torch=torch.__version__,
        python=platform.python_version(),
        notes=notes,
    )


def _in_turn(
    baselines: Mapping[str, Callable[[int], T]],
    title: str,
    steps: int,
    rounds: int,
    progress: Progress,
) -> dict[str, list[T]]:
    """Call each loop with `steps` in every round, in a different order each round."""
    results: dict[str, list[T]] = {name: [] for name in baselines}
    progress.start(title, (1 + rounds) * len(baselines))
    for number, names in zip(range(1 + rounds), cycle(permutations(baselines)), strict=False):
        for name in names:
            lap = baselines[name](steps if number else 1)  # the first round selects kernels
            if number:
                results[name].append(lap)
            progress.advance()
    progress.finish()
    return results


# --- the stage, evaluation and products that are measured -------------------------------------


def _measured_stage(session: Session, spec: Spec) -> tuple[Stage, list[str]]:
    """Return the last stage of a method, and notes for the reader."""
    listening = Listening()
    session.rehearse(spec, listening)
    if not listening.stages:
        raise OptionError(
            f"Method {spec.method.name} trains no stage, so there is nothing to measure: use "
            "another --method"
        )
    last, notes = listening.stages[-1], []
    if len(listening.stages) > 1:
        names = ", ".join(stage.name for stage in listening.stages)
        notes.append(f"The method has the stages {names}; the last one is measured.")
    if last.components:
        notes.append(
            "An update interval such as every=5% is a fraction of the steps of the benchmark, not "
            "of a training. An interval in steps is the same as in a training."
        )
    return for_timing(last), notes


def _evaluation(
    stage: Stage, task: Task, execution: Execution
) -> tuple[int, dict[str, Callable[[int], float]]]:
    """Return how many test samples are predicted, and the two functions that predict them."""
    test, part = task.test, slice(EVALUATED)
    split = Split(
        mapped(lambda x: x[part], readable(test.x)), test.y[part], test.bias[part], test.num_biases
    )
    view = PlacedTask(replace(task, test=split), execution.device).view("test", "none")
    objective, network = stage.copied().objective, stage.copied().objective.network
    predictor = Predictor(execution, stage.settings.precision)
    prepare = Prepare(task, execution.device)
    numerics = predictor.numerics
    numerics.lay_out(network.eval())

    def engine(_steps: int) -> float:
        begun = now()
        predictor.predict(objective, view)
        return now() - begun

    @torch.no_grad()
    def bare(_steps: int) -> float:
        begun = now()
        with numerics.applied(), numerics.autocast(execution.device):
            parts = range(0, len(view), BATCH)
            stored = (view.samples.take(slice(start, start + BATCH)) for start in parts)
            torch.cat([network(numerics.laid_out(prepare(x))).float() for x in stored])
        return now() - begun

    return len(view), {"engine": engine, "bare": bare}


class _Products:
    """Measures products of square matrices, with the numerics of a stage."""

    def __init__(self, objective: Objective, numerics: Numerics, device: torch.device) -> None:
        weight = next(objective.parameters())
        self._numerics, self._device, self._dtype = numerics, device, weight.dtype
        self._sizes = PRODUCTS if weight.is_cpu else LARGE_PRODUCTS
        self.seconds: dict[str, list[float]] = {str(n): [] for n in self._sizes}

    @torch.no_grad()
    def compute(self) -> None:
        """Multiply matrices of each size, and store the seconds."""
        for n in self._sizes:
            a, b = torch.rand(2, n, n, device=self._device, dtype=self._dtype)
            with self._numerics.applied(), self._numerics.autocast(self._device):
                a @ b  # the first product selects a kernel
                for _ in range(REPEATS):
                    begun = now()
                    torch.matmul(a, b)
                    self.seconds[str(n)].append(now() - begun)

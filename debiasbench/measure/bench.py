"""How fast this engine trains here: beside a bare loop, and beside a `DataLoader` over files."""

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
from debiasbench.core.data import Split
from debiasbench.core.inputs import mapped
from debiasbench.core.prepare import Prepare
from debiasbench.measure.baselines import Baselines, for_timing
from debiasbench.measure.image_files import is_image, loading
from debiasbench.measure.rehearsal import Listening
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

FILES = 2000  # images that are written for the DataLoader, at most
WORKERS = 4  # processes that read them, at most
EVALUATED = 4 * BATCH  # samples of the test split that are predicted, at most
PRODUCTS = (1024, 2048)  # rows of the square matrices that are multiplied
LARGE_PRODUCTS = (4096, 8192)  # the same on an accelerator
REPEATS = 3  # products of each size, at each of three times


@dataclass(frozen=True)
class Bench:
    """What was measured, as `--json` writes it: raw seconds, from which everything shown follows.

    Baselines are called "engine", "bare" and, where samples are images, "loader". The i-th values
    of two baselines come from one round, so that ratios are taken in pairs.

    `engine` trains the last stage of the method as the method asks for it. `bare` trains the same
    network with plain cross-entropy, the same optimizer and numerics, from the same memory. It
    draws every sample equally often and has no masks, so the ratio shows what a method adds.
    `loader` takes the steps of `bare` on batches of PNG files that Pillow opens and torchvision
    turns into tensors; batches that its processes read before the clock starts are in its favour.
    Each takes `WARM_UP` steps before the clock starts; `around` is what the engine took for these,
    for beginning and for ending.

    `split` comes from further steps that wait for the device after each part, so their sum is
    more than an uninterrupted step. What components do counts as "sparsity".

    `memory` is known where the device counts allocations; a CPU does not.
    """

    spec: dict[str, Any]  # of the run whose stage this is: see `record.Spec`
    stage: str  # its name in the method
    batch_size: int  # samples a step; fewer than were asked for where there are not as many
    steps: int  # timed ones of a round
    training: dict[str, list[float]]  # baseline -> seconds of the timed steps, each round
    samples: dict[str, int]  # baseline -> samples of a round, timed or not
    around: list[float]  # seconds of the engine beside the timed steps, each round
    memory: dict[str, list[int]]  # baseline -> peak bytes beyond the data, each round
    evaluation: dict[str, list[float]]  # "engine", "bare" -> seconds, each round
    evaluated: int  # samples of the test split
    split: dict[str, list[float]]  # part, or "step" for their sum -> seconds, each step
    flops: float  # of the objective's forward pass over a batch, dense; a multiply-add is two
    products: dict[str, list[float]]  # rows of square matrices -> seconds of each product
    precision: str  # of products and convolutions: see `Training`
    compile: str  # see `Numerics`; of the engine's training alone
    deterministic: bool
    workers: int  # processes of the DataLoader
    hardware: str
    torch: str
    python: str
    notes: list[str] = field(default_factory=list)

    def ratios(self, baseline: str) -> list[float]:
        """Return images/s of the engine over those of a baseline, each round of training."""
        return _ratios(self.training, baseline)

    def evaluation_ratios(self) -> list[float]:
        """Return the same of evaluation, over bare forward passes."""
        return _ratios(self.evaluation, "bare")

    def images_per_second(self, baseline: str) -> float:
        """Return the median over rounds of training."""
        return self.steps * self.batch_size / median(self.training[baseline])

    def flops_per_second(self) -> float:
        """Return what the engine achieves; a step counts as three dense forward passes."""
        return 3 * self.flops * self.steps / median(self.training["engine"])

    def peak(self) -> tuple[int, float]:
        """Return the rows of the matrices multiplied fastest, and FLOPs per second of these."""
        speeds = {int(n): 2 * int(n) ** 3 / min(seconds) for n, seconds in self.products.items()}
        return max(speeds.items(), key=lambda found: found[1])


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

    Baselines train in this process, one after the other in each round, every time from the same
    weights; a first, short round does not count. `workers`: processes of the DataLoader; by
    default one per core and `WORKERS` at most. The bare loop is never compiled. Raises whatever
    `Session.run` raises.
    """
    execution, progress = session.execution, session.progress
    if workers is None:
        workers = min(cores(), WORKERS)
    task = session.task(spec.dataset).task
    with seeded(spec.seed), ExitStack() as stack:
        stage, notes = _measured_stage(session, spec)
        timed = Baselines(stage, task, execution, Stopwatch())
        baselines = {"engine": timed.engine, "bare": timed.bare}
        if is_image(task):
            files = min(FILES, len(stage.batches.pool))
            loader = stack.enter_context(loading(stage, task, files, workers))
            baselines["loader"] = partial(timed.loader, *loader)
            notes.append(
                f"The DataLoader reads {files:,} PNG files with {workers} processes; the system "
                "has the files in memory."
            )
        else:
            notes.append("No DataLoader: samples are not 8-bit images of one or three channels.")
        numerics = replace(execution, compile="off").numerics(stage.settings.precision)
        products = _Products(stage.objective, numerics, execution.device)
        products.compute()
        laps = _in_turn(baselines, "training", steps, rounds, progress)
        products.compute()  # several times, since a shared machine is not always equally fast
        view_size, readers = _evaluation(stage, task, execution)
        predicted = _in_turn(readers, "evaluation", steps, rounds, progress)
        split, flops = step_profile(stage, execution, steps)
        products.compute()
    return Bench(
        spec=asdict(spec),
        stage=stage.name,
        batch_size=stage.batches.batch_size,
        steps=steps,
        training={name: [lap.seconds for lap in own] for name, own in laps.items()},
        samples={name: own[0].samples for name, own in laps.items()},
        around=[lap.around for lap in laps["engine"]],
        memory={
            name: peaks
            for name, own in laps.items()
            if (peaks := [lap.memory for lap in own if lap.memory is not None])
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
    """Let all take `steps` in every round, in a different order each round."""
    results: dict[str, list[T]] = {name: [] for name in baselines}
    progress.start(title, (1 + rounds) * len(baselines))
    for number, names in zip(range(1 + rounds), cycle(permutations(baselines)), strict=False):
        for name in names:
            lap = baselines[name](steps if number else 1)  # the first round finds kernels
            if number:
                results[name].append(lap)
            progress.advance()
    progress.finish()
    return results


# --- what is measured -------------------------------------------------------------------------


def _measured_stage(session: Session, spec: Spec) -> tuple[Stage, list[str]]:
    """Return the last stage that a method asks for, and notes for the reader."""
    listening = Listening()
    session.rehearse(spec, listening)
    if not listening.stages:
        raise OptionError(
            f"Method {spec.method.name} trains no stage, so there is nothing to measure: try "
            "another --method"
        )
    last, notes = listening.stages[-1], []
    if len(listening.stages) > 1:
        names = ", ".join(stage.name for stage in listening.stages)
        notes.append(f"Of the method's stages ({names}) the last is measured.")
    if last.components:
        notes.append(
            "An interval that is a fraction of the training, such as every=5%, is a fraction of "
            "these few steps here; an interval in steps stays as it is."
        )
    return for_timing(last), notes


def _evaluation(
    stage: Stage, task: Task, execution: Execution
) -> tuple[int, dict[str, Callable[[int], float]]]:
    """Return the size of a part of the test split, and who predicts it."""
    test, part = task.test, slice(EVALUATED)
    split = Split(mapped(lambda x: x[part], test.x), test.y[part], test.bias[part], test.num_biases)
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
    """Multiplies square matrices, in the numerics that a stage is trained in."""

    def __init__(self, objective: Objective, numerics: Numerics, device: torch.device) -> None:
        weight = next(objective.parameters())
        self._numerics, self._device, self._dtype = numerics, device, weight.dtype
        self._sizes = PRODUCTS if weight.is_cpu else LARGE_PRODUCTS
        self.seconds: dict[str, list[float]] = {str(n): [] for n in self._sizes}

    @torch.no_grad()
    def compute(self) -> None:
        """Multiply matrices of each size, and note the seconds."""
        for n in self._sizes:
            a, b = torch.rand(2, n, n, device=self._device, dtype=self._dtype)
            with self._numerics.applied(), self._numerics.autocast(self._device):
                a @ b  # chooses its kernel
                for _ in range(REPEATS):
                    begun = now()
                    torch.matmul(a, b)
                    self.seconds[str(n)].append(now() - begun)

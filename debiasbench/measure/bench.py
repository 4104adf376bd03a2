"""How fast this engine trains here: beside a bare loop, and beside a `DataLoader` over files."""

from __future__ import annotations

import copy
import platform
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import cycle, permutations
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from debiasbench.common.errors import OptionError
from debiasbench.common.processes import cores
from debiasbench.common.progress import Silent
from debiasbench.common.randomness import seeded
from debiasbench.core.data import Split
from debiasbench.core.settings import Training
from debiasbench.core.stage import Trained
from debiasbench.files import task_cache
from debiasbench.measure.baselines import (
    Normalise,
    Request,
    Track,
    is_image,
    loading,
    scaled,
    whole,
)
from debiasbench.measure.forecast import Stopwatch, now, rehearse
from debiasbench.measure.step_profile import taken_apart
from debiasbench.specs.resolve import instance, training_of
from debiasbench.training.engine import EVAL_BATCH, Engine
from debiasbench.training.placed import View

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from debiasbench.common.progress import Progress
    from debiasbench.core.component import Component
    from debiasbench.core.data import Task
    from debiasbench.core.objective import Objective
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec
    from debiasbench.training.placed import HeldOut
    from debiasbench.training.precision import Arithmetic, Compile

T = TypeVar("T")

FILES = 2000  # images that are written for the DataLoader, at most
WORKERS = 4  # processes that read them, at most
EVALUATED = 4 * EVAL_BATCH  # samples of the test split that are predicted, at most
PRODUCTS = (1024, 2048)  # rows of the square matrices that are multiplied
LARGE_PRODUCTS = (4096, 8192)  # the same on an accelerator
REPEATS = 3  # products of each size, at three times


@dataclass(frozen=True)
class Bench:
    """What was measured, as `--json` writes it: raw seconds, from which all that is shown follows.

    Contenders are called "engine", "bare" and, where samples are images, "loader". The i-th values
    of two contenders come from one round, so that ratios are taken in pairs.

    `engine` trains the last stage of the method as the method asks for it. `bare` trains the same
    network with plain cross-entropy, the same optimizer and arithmetic, from the same memory; it
    draws every sample equally often and holds no mask, so that what a method adds shows in the
    ratio. `loader` takes the steps of `bare` on batches of PNG files that Pillow opens and
    torchvision turns into tensors; what its processes read ahead before the clock runs is in its
    favour. Each takes `forecast.WARM_UP` steps before the clock runs; `around` says what the
    engine took for those, for beginning and for ending.

    `split` comes from further steps that halt after each part, so that their sum is more than a
    step takes that runs through. A component's hooks on the optimizer count as "sparsity", those
    on passes forward and backward as a part of these.

    `memory` is known where the device counts what is allocated; a CPU does not.
    """

    spec: dict[str, Any]  # of the run whose stage this is: see `record.Spec`
    stage: str  # its name in the method
    batch_size: int  # samples a step; fewer than were asked for where there are not as many
    steps: int  # timed ones of a round
    training: dict[str, list[float]]  # contender -> seconds of the timed steps, each round
    samples: dict[str, int]  # contender -> what it took in a round, timed or not
    around: list[float]  # seconds of the engine beside the timed steps, each round
    memory: dict[str, list[int]]  # contender -> bytes at most beyond the data, each round
    evaluation: dict[str, list[float]]  # "engine", "bare" -> seconds, each round
    evaluated: int  # samples of the test split
    split: dict[str, list[float]]  # part, or "step" for their sum -> seconds, each step
    flops: float  # of the objective's pass forward over a batch, dense; a multiply-add is two
    products: dict[str, list[float]]  # rows of square matrices -> seconds of each product
    precision: str  # of products and convolutions: see `Training`
    compile: str  # see `Arithmetic`; of the engine's training alone
    deterministic: bool
    workers: int  # processes of the DataLoader
    hardware: str
    torch: str
    python: str
    notes: list[str] = field(default_factory=list)

    def ratios(self, rival: str) -> list[float]:
        """Return images/s of the engine over those of a rival, each round of training."""
        return _ratios(self.training, rival)

    def evaluation_ratios(self) -> list[float]:
        """Return the same of evaluation, over bare passes forward."""
        return _ratios(self.evaluation, "bare")

    def images_per_second(self, contender: str) -> float:
        """Return the median over rounds of training."""
        return self.steps * self.batch_size / median(self.training[contender])

    def flops_per_second(self) -> float:
        """Return what the engine achieves; a step counts as three dense passes forward."""
        return 3 * self.flops * self.steps / median(self.training["engine"])

    def peak(self) -> tuple[int, float]:
        """Return the rows of the matrices multiplied fastest, and FLOPs per second of that."""
        speeds = {int(n): 2 * int(n) ** 3 / min(seconds) for n, seconds in self.products.items()}
        return max(speeds.items(), key=lambda found: found[1])


def _ratios(seconds: Mapping[str, Sequence[float]], rival: str) -> list[float]:
    return [b / a for a, b in zip(seconds["engine"], seconds[rival], strict=True)]


def bench(
    spec: Spec,
    plugins: Plugins,
    *,
    data_root: Path,
    steps: int = 40,
    rounds: int = 7,
    device: str = "auto",
    compile: Compile = "off",  # noqa: A002 - what torch calls it
    deterministic: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Bench:
    """Measure the last training stage of a spec's method, and evaluation, on this machine.

    Contenders train in this process, one after the other in each round, every time from the same
    weights; a first, short round does not count. `workers`: processes of the DataLoader; unless
    given, one per core and `WORKERS` at most. `compile`, `deterministic`: see `Arithmetic`; the
    bare loop is never compiled. Raises whatever `debiasbench.runs.run.run` raises.
    """
    clock = Stopwatch(Silent())
    training = training_of(spec)
    engine = Engine(
        device, clock, precision=training.precision, compile=compile, deterministic=deterministic
    )
    if workers is None:
        workers = min(cores(), WORKERS)
    task = task_cache.load(spec.dataset.name, instance(plugins.datasets, spec.dataset), data_root)
    with seeded(spec.seed), ExitStack() as stack:
        request, notes = _requested(spec, task, plugins, engine)
        track = Track(request, task, engine, clock)
        contenders = {"engine": track.engine, "bare": track.bare}
        if is_image(task):
            files = min(FILES, len(request.pool))
            loader = stack.enter_context(loading(request, task, files, workers))
            contenders["loader"] = partial(track.loader, *loader)
            notes.append(
                f"The DataLoader reads {files:,} PNG files with {workers} processes of its own; "
                "the system has the files in memory."
            )
        else:
            notes.append("No DataLoader: samples are no 8-bit images of one or three channels.")
        products = _Products(request.objective, track.how, engine.device)
        products.compute()
        taken = _in_turn(contenders, "training", steps, rounds, progress or Silent())
        products.compute()  # now and then, since a machine that others use is not always as fast
        view, readers = _evaluation(request, task, engine)
        predicted = _in_turn(readers, "evaluation", steps, rounds, progress or Silent())
        split, flops = taken_apart(request, track.how, engine.device, steps)
        products.compute()
    return Bench(
        spec=asdict(spec),
        stage=request.name,
        batch_size=request.batch_size,
        steps=steps,
        training={name: [lap.seconds for lap in laps] for name, laps in taken.items()},
        samples={name: laps[0].samples for name, laps in taken.items()},
        around=[lap.around for lap in taken["engine"]],
        memory={
            name: peaks
            for name, laps in taken.items()
            if (peaks := [lap.memory for lap in laps if lap.memory is not None])
        },
        evaluation=predicted,
        evaluated=len(view),
        split=split,
        flops=flops,
        products=products.seconds,
        precision=track.how.precision,
        compile=compile,
        deterministic=deterministic,
        workers=workers,
        hardware=engine.hardware(),
        torch=torch.__version__,
        python=platform.python_version(),
        notes=notes,
    )


def _in_turn(
    contenders: Mapping[str, Callable[[int], T]],
    what: str,
    steps: int,
    rounds: int,
    progress: Progress,
) -> dict[str, list[T]]:
    """Let all take `steps` in every round, each time in another order."""
    found: dict[str, list[T]] = {name: [] for name in contenders}
    progress.start(what, (1 + rounds) * len(contenders))
    for number, names in zip(range(1 + rounds), cycle(permutations(contenders)), strict=False):
        for name in names:
            lap = contenders[name](steps if number else 1)  # the first round finds kernels
            if number:
                found[name].append(lap)
            progress.advance()
    progress.finish()
    return found


# --- what is measured -------------------------------------------------------------------------


class _Listening(Engine):
    """Writes down which stages a method asks for, and trains none."""

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self.requests: list[Request] = []

    def train(
        self,
        objective: Objective,
        view: View,
        training: Training,
        *,
        seed: int,
        name: str,
        weights: Tensor | None = None,
        subset: Tensor | None = None,
        extra: Mapping[str, Tensor] | None = None,
        components: Sequence[Component] = (),
        masks: Mapping[str, Tensor] | None = None,
        validation: HeldOut,
        **_more: Any,
    ) -> Trained:
        """Return the objective as it is."""
        pool = torch.arange(len(view)) if subset is None else subset
        if weights is not None:  # what is more than whole batches must not be all that is drawn
            pool = pool[weights[pool].argsort(descending=True)]
        size = min(training.batch_size, len(pool))
        # looking at validation, as this one does, is no part of a step
        schedule = "constant" if training.schedule == "plateau" else training.schedule
        mine, its = copy.deepcopy((objective, components))  # a method may go on with its own
        self.requests.append(
            Request(
                name, mine, its, view, replace(training, batch_size=size, schedule=schedule),
                seed, validation, whole(pool, size), weights, extra or {}, masks or {},
            )
        )  # fmt: skip
        return Trained(objective)


def _requested(
    spec: Spec, task: Task, plugins: Plugins, engine: Engine
) -> tuple[Request, list[str]]:
    """Return the last stage that a method asks for, and what a reader should know of it."""
    listening = _Listening(str(engine.device))
    rehearse(spec, task, plugins, listening)
    if not listening.requests:
        raise OptionError(
            f"method {spec.method.name} trains no stage, so that there is nothing to measure: try "
            "another --method"
        )
    last, notes = listening.requests[-1], []
    if len(listening.requests) > 1:
        names = ", ".join(request.name for request in listening.requests)
        notes.append(f"Of the method's stages ({names}) the last is measured.")
    if last.components:
        notes.append(
            "An interval that is a fraction of the training, such as every=5% of updates of the "
            "topology, is here a fraction of these few steps; one in steps stays as it is."
        )
    return last, notes


def _evaluation(
    request: Request, task: Task, engine: Engine
) -> tuple[View, dict[str, Callable[[int], float]]]:
    """Return a part of the test split, and who predicts it."""
    test = task.test
    part = slice(EVALUATED)
    split = Split(test.x[part], test.y[part], test.bias[part], test.num_biases)
    view = View(task, split, {"y": split.y}, engine.device)
    objective, network = request.fresh()[0], request.fresh()[0].network
    normalised, how = Normalise(task, engine.device), engine.arithmetic
    how.lay_out(network.eval())

    def forward(x: Tensor) -> Tensor:
        logits: Tensor = network(how.laid_out(normalised(scaled(x.to(engine.device)))))
        return logits.float()

    def ours(_steps: int) -> float:
        begun = now()
        engine.predict(objective, view)
        return now() - begun

    @torch.no_grad()
    def bare(_steps: int) -> float:
        begun = now()
        with how.applied(), how.autocast(engine.device):
            torch.cat([forward(x) for x in torch.split(view.x, EVAL_BATCH)])
        return now() - begun

    return view, {"engine": ours, "bare": bare}


class _Products:
    """Multiplies square matrices, in the arithmetic that a stage is trained in."""

    def __init__(self, objective: Objective, how: Arithmetic, device: torch.device) -> None:
        weight = next(objective.parameters())
        self._how, self._device, self._dtype = how, device, weight.dtype
        self._sizes = PRODUCTS if weight.is_cpu else LARGE_PRODUCTS
        self.seconds: dict[str, list[float]] = {str(n): [] for n in self._sizes}

    @torch.no_grad()
    def compute(self) -> None:
        """Multiply matrices of each size, and note the seconds."""
        for n in self._sizes:
            a, b = torch.rand(2, n, n, device=self._device, dtype=self._dtype)
            with self._how.applied(), self._how.autocast(self._device):
                a @ b  # finds its kernel
                for _ in range(REPEATS):
                    begun = now()
                    torch.matmul(a, b)
                    self.seconds[str(n)].append(now() - begun)

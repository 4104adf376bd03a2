"""Who trains a stage when its speed is measured: the engine, a bare loop, and one over files."""

from __future__ import annotations

import copy
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler

from debiasbench.measure.forecast import WARM_UP, Stopwatch, now
from debiasbench.training.optimizers import make_optimizer
from debiasbench.training.precision import Arithmetic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from debiasbench.core.component import Component
    from debiasbench.core.data import Task
    from debiasbench.core.objective import Objective
    from debiasbench.core.settings import Training
    from debiasbench.training.engine import Engine
    from debiasbench.training.placed import HeldOut, View

    Batches = Iterator[tuple[Tensor, Tensor]]  # x: (B, *input) as a network takes it, y: (B,)


@dataclass(frozen=True, eq=False)
class Request:
    """A training stage as a method asked for it, before anything was trained."""

    name: str
    objective: Objective
    components: Sequence[Component]
    view: View
    training: Training
    seed: int
    validation: HeldOut
    pool: Tensor  # (M,) indices of the samples, as many as make whole batches
    weights: Tensor | None  # (N,) of all samples of the split
    extra: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]

    @property
    def batch_size(self) -> int:
        """Samples a step."""
        return self.training.batch_size

    def fresh(self) -> tuple[Objective, Sequence[Component]]:
        """Return what is trained, as it was at the beginning."""
        return copy.deepcopy((self.objective, self.components))


class Lap(NamedTuple):
    """What a contender took in one round."""

    seconds: float  # of the timed steps
    samples: int  # of all steps, the first ones included
    memory: int | None  # bytes at most, beyond those in use before; None: the device counts none
    around: float  # seconds beside the timed steps


class Track:
    """Where contenders train: one stage, one device, one clock."""

    def __init__(self, request: Request, task: Task, engine: Engine, clock: Stopwatch) -> None:
        self._request, self._engine, self._clock = request, engine, clock
        self._augment = task.augment
        self._normalised = Normalise(task, engine.device)
        self.how = Arithmetic.on(
            engine.device,
            request.training.precision,
            deterministic=engine.arithmetic.deterministic,
        )

    def engine(self, steps: int) -> Lap:
        """Train as a run does."""
        asked, engine = self._request, self._engine

        def train() -> int:
            objective, components = asked.fresh()
            engine.train(
                objective, asked.view, asked.training, seed=asked.seed, name=asked.name,
                steps=WARM_UP + steps, weights=asked.weights, subset=asked.pool,
                extra=asked.extra, components=components, masks=asked.masks,
                validation=asked.validation, select=False,
            )  # fmt: skip
            return engine.costs[-1].samples

        return self._lap(train, steps)

    def bare(self, steps: int) -> Lap:
        """Train as one does without a library, from the same memory."""
        asked, device = self._request, self._engine.device
        x, y = asked.view.x, asked.view.labels["y"]  # samples too many for the device lie elsewhere
        order = orders(asked.pool.to(x.device), asked.batch_size)

        def batches() -> Batches:
            rng = torch.Generator(device).manual_seed(asked.seed)
            for index in islice(order, WARM_UP + steps):
                images = scaled(x[index].to(device))
                if self._augment is not None:
                    images = self._augment(images, rng)
                yield self._normalised(images), y[index.to(device)]

        return self._lap(partial(self._train, batches(), steps), steps)

    def loader(self, loader: DataLoader[Any], order: Shuffled, steps: int) -> Lap:
        """Train likewise, on batches that a `DataLoader` reads in an `order`."""
        asked, device = self._request, self._engine.device
        order.steps = WARM_UP + steps

        def batches() -> Batches:
            rng = torch.Generator(device).manual_seed(asked.seed)
            for x, y in loader:
                images = x.to(device, non_blocking=True)
                if self._augment is not None:  # of normalised values, which takes as long
                    images = self._augment(images, rng)
                yield images, y.to(device, non_blocking=True)

        return self._lap(partial(self._train, batches(), steps), steps)

    def _train(self, batches: Batches, steps: int) -> int:
        """Take a step on each batch; return how many samples they had."""
        asked, how, device = self._request, self.how, self._engine.device
        network = copy.deepcopy(asked.objective.network).train()
        how.lay_out(network)
        optimizer = make_optimizer(network.parameters(), asked.training)
        scaler, samples = how.scaler(device), 0
        self._clock.start(asked.name, WARM_UP + steps)
        with how.applied():
            for x, y in batches:
                with how.autocast(device):
                    loss: Any = F.cross_entropy(network(how.laid_out(x)), y)
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                if asked.training.clip_norm is not None:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(network.parameters(), asked.training.clip_norm)
                scaler.step(optimizer)
                scaler.update()
                samples += len(y)
                self._clock.advance()
        return samples

    def _lap(self, train: Callable[[], int], steps: int) -> Lap:
        """Let a contender train; where the device counts memory, see how much it took."""
        device = self._engine.device
        module: Any = torch.get_device_module(device)
        peak = getattr(module, "max_memory_allocated", None)
        before = 0
        if peak is not None:
            before = module.memory_allocated(device)
            module.reset_peak_memory_stats(device)
        self._clock.steps = steps
        begun = now()
        samples = train()
        whole, timed = now() - begun, steps * self._clock.seconds
        return Lap(timed, samples, None if peak is None else peak(device) - before, whole - timed)


class Normalise:
    """Subtracts a task's mean and divides by its deviation, as a bare loop does."""

    def __init__(self, task: Task, device: torch.device) -> None:
        shape = [1, -1] + [1] * (len(task.shape.input) - 1)
        self._mean, self._std = (
            None if values is None else torch.tensor(values, device=device).view(shape)
            for values in (task.mean, task.std)
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(B, *input) in [0, 1] -> what a network takes."""
        x = x if self._mean is None else x - self._mean
        return x if self._std is None else x / self._std


def scaled(x: Tensor) -> Tensor:
    """(B, *input) samples -> float ones, images in [0, 1]."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x


def whole(pool: Tensor, batch_size: int) -> Tensor:
    """Leave out what is more than whole batches."""
    return pool[: len(pool) // batch_size * batch_size]


def orders(pool: Tensor, batch_size: int, weights: Tensor | None = None) -> Iterator[Tensor]:
    """Yield batches of indices (B,) without end, in a new order each epoch."""
    while True:
        if weights is None:
            order = torch.randperm(len(pool), device=pool.device)
        else:
            order = torch.multinomial(weights[pool], len(pool), replacement=True)
        yield from torch.split(pool[order], batch_size)


# --- images as files --------------------------------------------------------------------------


class Shuffled(Sampler[list[int]]):
    """Whole batches of `size` samples in a new order each epoch; `steps` of them."""

    def __init__(self, size: int, batch_size: int) -> None:
        pool = torch.arange(max(size, batch_size)) % size  # a batch may be more than there are
        self._pool, self._batch_size = whole(pool, batch_size), batch_size
        self.steps = 0

    def __iter__(self) -> Iterator[list[int]]:
        """Yield them; nothing is read ahead beyond the last."""
        for index in islice(orders(self._pool, self._batch_size), self.steps):
            yield index.tolist()

    def __len__(self) -> int:
        return self.steps


def is_image(task: Task) -> bool:
    """Say whether samples are 8-bit images of one or three channels, such as files hold."""
    x = task.train.x
    return x.dtype == torch.uint8 and x.dim() == 4 and x.shape[1] in {1, 3}


@contextmanager
def loading(
    request: Request, task: Task, files: int, workers: int
) -> Iterator[tuple[DataLoader[Any], Shuffled]]:
    """Write the first images of a stage as PNG files, and read them as tutorials do."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    channels = task.shape.input[0]
    steps: list[object] = [transforms.ToTensor()]
    if task.mean is not None or task.std is not None:
        mean, std = task.mean or (0.0,) * channels, task.std or (1.0,) * channels
        steps.append(transforms.Normalize(mean, std))
    order = Shuffled(files, request.batch_size)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # of forking beside threads, as every DataLoader does
        warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
        _write(request, task, files, Path(folder))
        dataset = ImageFolder(
            folder,
            transforms.Compose(steps),
            loader=partial(_open, mode="L" if channels == 1 else "RGB"),
            allow_empty=True,
        )
        loader = DataLoader(
            dataset,
            batch_sampler=order,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=not request.view.labels["y"].is_cpu,
        )
        try:
            yield loader, order
        finally:
            loader._iterator = None  # ends its processes before their files go


def _write(request: Request, task: Task, files: int, folder: Path) -> None:
    x, y = request.view.x, request.view.labels["y"].cpu()
    digits = len(str(len(task.classes)))
    for c in range(len(task.classes)):  # in the order of their names, as ImageFolder counts
        (folder / f"{c:0{digits}}").mkdir()
    for at in request.pool[:files].tolist():
        pixels = x[at].cpu()  # (C, H, W)
        image = Image.fromarray(
            (pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).numpy()
        )
        image.save(folder / f"{int(y[at]):0{digits}}" / f"{at}.png")


def _open(path: str, mode: str) -> Image.Image:
    """Read an image as torchvision's own loader does, which knows RGB alone."""
    with Path(path).open("rb") as file:
        return Image.open(file).convert(mode)

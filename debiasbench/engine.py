"""The one training loop, and the one place that knows devices."""

from __future__ import annotations

import math
import platform
import resource
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.errors import OptionError, TrainingFailed
from debiasbench.metrics import accuracies
from debiasbench.optimizers import Schedule, make_optimizer
from debiasbench.randomness import derive, generator, seeded
from debiasbench.selection import Tracker
from debiasbench.sparsity import Flops, NonFiniteGradient, count_flops
from debiasbench.stage import Checkpoint, StageCost, Trained

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch.optim import Optimizer

    from debiasbench.component import Component
    from debiasbench.objective import Objective
    from debiasbench.training import Training
    from debiasbench.views import HeldOut, View

V = TypeVar("V")

EVAL_BATCH = 1024  # large enough that evaluation is bound by arithmetic, small enough for memory


class Progress(Protocol):
    """What the loop tells whoever watches it."""

    def start(self, stage: str, steps: int) -> None:
        """A stage of `steps` steps begins."""

    def advance(self) -> None:
        """A step is done."""

    def finish(self) -> None:
        """The stage is over."""


class Silent:
    """Nobody watches."""

    def start(self, stage: str, steps: int) -> None:
        """Do nothing."""

    def advance(self) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


class Engine:
    """Trains and evaluates modules on one device; keeps account of what it cost."""

    def __init__(self, device: str = "auto", progress: Progress | None = None) -> None:
        self.device = resolve_device(device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.costs: list[StageCost] = []
        self.densities: dict[str, float] = {}  # of the last stage, by parameter of its objective
        self._progress: Progress = progress or Silent()

    def train(
        self,
        objective: Objective,
        view: View,
        training: Training,
        *,
        seed: int,
        name: str,
        steps: int | None = None,
        weights: Tensor | None = None,
        subset: Tensor | None = None,
        extra: Mapping[str, Tensor] | None = None,
        components: Sequence[Component] = (),
        masks: Mapping[str, Tensor] | None = None,
        validation: HeldOut,
        select: bool = True,
    ) -> Trained:
        """Minimise `objective` over `view`; the contract of a stage stands at `Lab.train`.

        Raises `TrainingFailed` once an epoch is over in which the loss was not finite.
        """
        begun = time.perf_counter()
        sampler = _Sampler(len(view), training.batch_size, weights, subset)
        total = steps or training.epochs * len(sampler)
        _train_mode(objective.to(self.device))
        optimizer = make_optimizer(objective.parameters(), training)
        schedule = Schedule(optimizer, training, steps=total, steps_per_epoch=len(sampler))
        more = {k: v.to(self.device) for k, v in (extra or {}).items()}
        augment = torch.Generator(self.device)
        keeper = _Keeper(self, validation) if select or training.schedule == "plateau" else None
        flops = Flops()
        last_loss: float | None = None
        step = samples = 0

        stage = {
            "steps": total,
            "steps_per_epoch": len(sampler),
            "seed": derive(seed, "components"),
        }
        with (
            self._watched(name, total),
            seeded(derive(seed, "modules")),
            _taking_part(components, objective, optimizer, masks=masks or {}, **stage),
        ):
            for epoch in range(-(-total // len(sampler))):
                batches = sampler.epoch(generator(seed, "order", epoch), self.device)
                batches = batches[: total - step]
                losses = torch.empty(len(batches), device=self.device)
                for i, index in enumerate(batches):
                    augment.manual_seed(derive(seed, "augment", step))  # no state to restore
                    batch = view.batch(index, more, augment)
                    with count_flops(objective, flops) if step == 0 else nullcontext():
                        loss = objective(batch)
                    optimizer.zero_grad()
                    loss.backward()
                    losses[i] = loss.detach()  # read once an epoch: no waiting for the device
                    for component in components:
                        component.before_step(step)
                    if training.clip_norm is not None:
                        nn.utils.clip_grad_norm_(objective.parameters(), training.clip_norm)
                    try:
                        optimizer.step()
                    except NonFiniteGradient as error:
                        _check_finite(losses[: i + 1], last_loss, name, step - i)
                        raise TrainingFailed(name, step, loss.item(), "A gradient") from error
                    for component in components:
                        component.after_step(step)
                    schedule.after_step()
                    step += 1
                    self._progress.advance()
                last_loss = _check_finite(losses, last_loss, name, step - len(batches))
                samples += sum(map(len, batches))
                for component in components:
                    component.on_epoch_end(epoch)
                if keeper is not None:
                    eligible = all(component.settled() for component in components)
                    schedule.after_epoch(keeper.epoch(objective, epoch + 1, eligible))
        if not is_finite(objective):  # the last step's damage shows in no loss
            raise TrainingFailed(name, step - 1, last_loss, "A weight")

        each = _training_flops(flops, min(training.batch_size, sampler.epoch_size), components)
        seconds = time.perf_counter() - begun
        self.costs.append(StageCost(name, epoch + 1, step, samples, seconds, samples * each))
        self.densities = _merged(c.densities() for c in components)
        kept = keeper.checkpoints(objective) if keeper is not None and select else {}
        return Trained(objective, kept, self.densities, _merged(c.masks() for c in components))

    @contextmanager
    def _watched(self, stage: str, steps: int) -> Iterator[None]:
        self._progress.start(stage, steps)
        try:
            yield
        finally:
            self._progress.finish()

    @torch.no_grad()
    def predict(self, objective: Objective, view: View) -> Tensor:
        """(N, C) logits over a view, on the device, in evaluation mode and without augmentation."""
        with evaluating(objective.to(self.device)):
            return torch.cat([objective.predict(view.inputs(part)) for part in _parts(view)])

    @torch.no_grad()
    def features(self, objective: Objective, head: nn.Linear, view: View) -> Tensor:
        """(N, D) inputs of the network's head over a view, on the device."""
        taken: list[Tensor] = []
        handle = head.register_forward_pre_hook(lambda _m, args: taken.append(args[0].flatten(1)))
        try:
            with evaluating(objective.to(self.device)):
                for part in _parts(view):
                    objective.network(view.inputs(part))
        finally:
            handle.remove()
        return torch.cat(taken)

    def hits(self, logits: Tensor, view: View, groups: int) -> list[int]:
        """(G,) correctly classified samples per group."""
        right = logits.argmax(1) == view.labels["y"]
        return view.labels["group"][right].bincount(minlength=groups).tolist()

    def flops(self, objective: Objective, view: View) -> tuple[float, dict[str, float]]:
        """Forward FLOPs of predicting one sample, in all and by parameter name, dense."""
        with evaluating(objective.to(self.device)), count_flops(objective) as counted:
            objective.predict(view.inputs(slice(1)))  # gradients on: no fused path hides operations
        return counted.total, counted.by_parameter

    def peak_memory(self) -> int:
        """Bytes: the device's peak allocation, on the CPU the process's peak resident size."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def hardware(self) -> str:
        """Name of the device."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{_cpu_name()}, {torch.get_num_threads()} threads"

    def deterministic(self) -> bool:
        """Say whether equal runs give equal bits here; accelerators are not yet made to."""
        return self.device.type == "cpu"


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is an accelerator if there is one.

    Raises `OptionError` for one that is not there.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise OptionError(
            f"--device {name}: {reason}. --device auto takes what is there"
        ) from error
    return device


def _parts(view: View) -> Iterator[slice]:
    """Consecutive pieces of a view: slices are views of memory, indices would copy it."""
    return (slice(at, at + EVAL_BATCH) for at in range(0, len(view), EVAL_BATCH))


class _Sampler:
    """Orders samples into batches: a permutation, or draws with replacement by weight."""

    def __init__(
        self, size: int, batch_size: int, weights: Tensor | None, subset: Tensor | None
    ) -> None:
        self._pool = torch.arange(size) if subset is None else subset
        self._weights = None if weights is None else weights[self._pool]
        self._batch_size = batch_size
        n = len(self._pool)
        # BatchNorm cannot train on a single sample, so a lone last one is left out of the epoch
        lone = n % batch_size == 1 and n > 1 and batch_size > 1
        self.epoch_size = n - lone

    def __len__(self) -> int:
        return math.ceil(self.epoch_size / self._batch_size)

    def epoch(self, rng: torch.Generator, device: torch.device) -> list[Tensor]:
        """Return an epoch's batches of sample indices, each (B,)."""
        n = len(self._pool)
        if self._weights is None:
            order = torch.randperm(n, generator=rng)
        else:
            order = torch.multinomial(self._weights, n, replacement=True, generator=rng)
        return list(torch.split(self._pool[order[: self.epoch_size]].to(device), self._batch_size))


class _Keeper:
    """Validates after each epoch and keeps the weights that each selection rule chooses."""

    def __init__(self, engine: Engine, validation: HeldOut) -> None:
        self._engine, self._validation = engine, validation
        self._tracker = Tracker()
        self._states: dict[str, dict[str, Tensor]] = {}

    def epoch(self, objective: Objective, epoch: int, eligible: bool) -> float:
        """Look at the validation split once; return its mean cross-entropy.

        An epoch that is not `eligible` is kept by the rule `last` alone.
        """
        view = self._validation.view
        logits = self._engine.predict(objective, view)
        hits = self._engine.hits(logits, view, len(self._validation.totals))
        counts = accuracies(self._validation.counts(hits)) if eligible else {}
        improved = self._tracker.update(epoch, counts)
        if improved != ["last"]:
            self._states |= dict.fromkeys(improved, _copy_state(objective))
        return F.cross_entropy(logits, view.labels["y"]).item()

    def checkpoints(self, objective: Objective) -> dict[str, Checkpoint]:
        """Return what every rule keeps; `last` is what the objective holds now."""
        states = self._states | {"last": _copy_state(objective)}
        return {
            rule: Checkpoint(epoch, value, states[rule])
            for rule, (epoch, value) in self._tracker.best.items()
        }


def is_finite(module: nn.Module) -> bool:
    """Say whether no parameter or buffer is NaN or infinite."""
    return all(bool(value.isfinite().all()) for value in module.state_dict().values())


def _train_mode(module: nn.Module) -> None:
    """Training mode, but for what is frozen: BatchNorm there keeps its statistics too."""
    module.train()
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            part.eval()


@contextmanager
def _taking_part(
    components: Sequence[Component],
    objective: Objective,
    optimizer: Optimizer,
    *,
    masks: Mapping[str, Tensor],
    **stage: int,
) -> Iterator[None]:
    """Let components begin a stage, and let go when it is over, however it ends."""
    begun: list[Component] = []
    try:
        for component in components:
            component.on_start(objective, optimizer, masks=masks, **stage)
            begun.append(component)
        _check_disjoint(components)
        yield
    finally:
        for component in begun:
            component.on_end()


def _training_flops(first: Flops, batch: int, components: Sequence[Component]) -> float:
    """FLOPs of training on one sample; `first` counted the forward pass of a batch, dense."""
    layers = {parameter: f / batch for parameter, f in first.by_parameter.items()}
    # forward, input gradient and weight gradient cost alike (Evci et al., 2020, appendix H)
    return 3 * first.total / batch - sum(c.saved_flops(layers) for c in components)


def _merged(parts: Iterable[Mapping[str, V]]) -> dict[str, V]:
    """Join what components say; they never speak of the same weight."""
    return {name: value for part in parts for name, value in part.items()}


def _check_disjoint(components: Sequence[Component]) -> None:
    """Refuse two components that both empty the same weights."""
    taken: set[str] = set()
    for component in components:
        names = component.densities().keys()
        if both := sorted(taken & names):
            raise OptionError(
                f"Two components make {both[0]} sparse: the method brings one of its own, so "
                "leave the other out"
            )
        taken |= names


def _copy_state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _check_finite(losses: Tensor, before: float | None, stage: str, first: int) -> float | None:
    """Return the last loss; raise at the first that is not finite. `first`: step of losses[0]."""
    values = losses.cpu()
    bad = (~values.isfinite()).nonzero()[:, 0]
    if len(bad) == 0:
        return values[-1].item()
    at = int(bad[0])
    raise TrainingFailed(stage, first + at, values[at - 1].item() if at else before)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and back to whatever each submodule was in."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, mode in modes:
            m.training = mode


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

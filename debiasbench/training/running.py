"""A stage while it is trained: in which order, how far, and all that a restart needs."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from debiasbench.common.errors import OptionError, TrainingFailed
from debiasbench.common.randomness import derive
from debiasbench.sparsity import Flops, count_flops
from debiasbench.training.optimizers import Schedule, make_optimizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch.optim import Optimizer

    from debiasbench.core.component import Component
    from debiasbench.core.data import Batch
    from debiasbench.core.objective import Objective
    from debiasbench.core.settings import Training
    from debiasbench.training.distributed import Team
    from debiasbench.training.placed import View
    from debiasbench.training.precision import Arithmetic


class Stateful(Protocol):
    """What can be put aside and taken up again."""

    def state_dict(self) -> dict[str, object]:
        """Return all that is needed to go on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state again."""


@dataclass(frozen=True, eq=False)
class Stage:
    """What a stage is, whatever came of it so far."""

    name: str
    objective: Objective
    view: View
    training: Training
    seed: int
    sampler: Sampler
    steps: int
    extra: Mapping[str, Tensor]
    components: Sequence[Component]
    masks: Mapping[str, Tensor]


@dataclass
class Position:
    """How far a stage is."""

    epoch: int = 0
    batch: int = 0  # steps taken in this epoch
    step: int = 0
    samples: int = 0
    last_loss: float | None = None  # of the epoch before
    losses: Tensor = field(default_factory=lambda: torch.empty(0))  # of this epoch's steps
    counted: int = 0  # samples whose FLOPs were counted
    seconds: float = 0.0  # before the last restart

    def begin(self, epoch: int, steps: int, device: torch.device) -> None:
        """Begin an epoch, or go on in one of which `batch` steps are taken."""
        losses = torch.empty(steps, device=device)
        losses[: self.batch] = self.losses[: self.batch].to(device)
        self.epoch, self.losses = epoch, losses

    def check_finite(self, stage: str, steps: int) -> float | None:
        """Return the loss of the last of this epoch's first `steps`; raise if one is not finite."""
        return _check_finite(self.losses[:steps], self.last_loss, stage, self.step - self.batch)


class Running:
    """A stage that is being trained: all that changes, and what a step does to it."""

    def __init__(
        self,
        stage: Stage,
        keeper: Stateful | None,
        device: torch.device,
        how: Arithmetic,
        team: Team,
        micro_batch: int | None,
    ) -> None:
        self._begun = time.perf_counter()
        self._stage, self._keeper, self._device, self._how = stage, keeper, device, how
        self._team, self._micro_batch = team, micro_batch
        self._at_least = 1 + normalises(stage.objective)  # samples of a part
        self.optimizer = make_optimizer(stage.objective.parameters(), stage.training)
        self.schedule = Schedule(
            self.optimizer, stage.training, steps=stage.steps, steps_per_epoch=len(stage.sampler)
        )
        self._scaler = how.scaler(device)
        self.flops = Flops()  # of the first pass forward
        self.at = Position()
        self._augment = torch.Generator(device)

    def before_step(self, index: Tensor) -> None:
        """Compute the gradients of the batch at `index` (B,)."""
        stage, at = self._stage, self.at
        if stage.view.augments:  # seeded by the step, so that there is nothing to restore
            self._augment.manual_seed(derive(stage.seed, "augment", at.step))
        batch = stage.view.batch(index, stage.extra, self._augment)
        batch.x = self._how.laid_out(batch.x)
        self.optimizer.zero_grad()
        mine, weight = self._team.share(batch)
        losses = [
            self._backward(part, weight * len(part) / len(mine))
            for part in mine.parts(self._micro_batch, self._at_least)
        ]
        # read once an epoch: no waiting for the device
        at.losses[at.batch] = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        self._team.add_up(stage.objective, at.losses[at.batch])
        self._scaler.unscale_(self.optimizer)
        for component in stage.components:
            component.before_step(at.step)
        if stage.training.clip_norm is not None:
            nn.utils.clip_grad_norm_(stage.objective.parameters(), stage.training.clip_norm)

    def _backward(self, part: Batch, share: float) -> Tensor:
        """Add a part's gradients to those that are there; return its share of the loss."""
        stage, first = self._stage, self.at.counted == 0
        counting = count_flops(stage.objective, self.flops) if first else nullcontext()
        with counting, self._how.counting() if first else nullcontext():
            with self._how.autocast(self._device):
                loss = stage.objective(part)
            self.at.counted = self.at.counted or len(part)
        if share != 1:
            loss = loss * share
        self._scaler.scale(loss).backward()
        detached: Tensor = loss.detach()
        return detached

    def step(self) -> None:
        """Let the optimizer move the parameters."""
        self._scaler.step(self.optimizer)
        self._scaler.update()

    def after_step(self, samples: int) -> None:
        """Move everything on that follows the optimizer."""
        at = self.at
        for component in self._stage.components:
            component.after_step(at.step)
        self.schedule.after_step()
        at.step, at.batch, at.samples = at.step + 1, at.batch + 1, at.samples + samples

    def seconds(self) -> float:
        """Return how long it took so far, before and after restarts."""
        return self.at.seconds + time.perf_counter() - self._begun

    def state_dict(self) -> dict[str, object]:
        """Return all that is needed to go on bit for bit."""
        at = self.at
        return {
            "objective": self._stage.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "components": [component.state_dict() for component in self._stage.components],
            "keeper": None if self._keeper is None else self._keeper.state_dict(),
            "scaler": self._scaler.state_dict(),
            "micro_batch": self._micro_batch,
            "random": self._team.gather(_random_state(self._device)),
            "flops": asdict(self.flops),
            "at": {**vars(at), "losses": at.losses[: at.batch], "seconds": self.seconds()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state again, after components have begun."""
        self._stage.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        for p, its in self.optimizer.state.items():  # fused kernels want it to lie as p does
            for name, value in its.items():
                if isinstance(value, Tensor) and value.shape == p.shape:
                    its[name] = torch.empty_like(p).copy_(value)
        self.schedule.load_state_dict(state["schedule"])
        for component, its in zip(self._stage.components, state["components"], strict=True):
            component.load_state_dict(its)
        if self._keeper is not None:
            self._keeper.load_state_dict(state["keeper"])
        self._scaler.load_state_dict(state["scaler"])
        _set_random_state(self._device, state["random"][self._team.rank])
        vars(self.flops).update(state["flops"])
        vars(self.at).update(state["at"])


def normalises(module: nn.Module) -> bool:
    """Say whether BatchNorm is being trained, so that a sample needs others beside it."""
    return any(isinstance(m, _NormBase) and m.training for m in module.modules())


def _random_state(device: torch.device) -> list[Tensor]:
    """States of the global generators that modules such as dropout draw from."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state(device))
    return states


def _set_random_state(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[1], device)


class Sampler:
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

    @property
    def largest(self) -> int:
        """Samples of the largest batch of an epoch."""
        return min(self._batch_size, self.epoch_size)

    @property
    def smallest(self) -> int:
        """Samples of the smallest batch of an epoch."""
        return self.epoch_size % self._batch_size or self.largest

    def epoch(self, rng: torch.Generator, device: torch.device) -> list[Tensor]:
        """Return an epoch's batches of sample indices, each (B,)."""
        n = len(self._pool)
        if self._weights is None:
            order = torch.randperm(n, generator=rng)
        else:
            order = torch.multinomial(self._weights, n, replacement=True, generator=rng)
        return list(torch.split(self._pool[order[: self.epoch_size]].to(device), self._batch_size))


@contextmanager
def taking_part(stage: Stage, optimizer: Optimizer) -> Iterator[None]:
    """Let components begin a stage, and let go when it is over, however it ends."""
    begun: list[Component] = []
    try:
        for component in stage.components:
            component.on_start(
                stage.objective,
                optimizer,
                steps=stage.steps,
                steps_per_epoch=len(stage.sampler),
                seed=derive(stage.seed, "components"),
                masks=stage.masks,
            )
            begun.append(component)
        _check_disjoint(stage.components)
        yield
    finally:
        for component in begun:
            component.on_end()


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


def _check_finite(losses: Tensor, before: float | None, stage: str, first: int) -> float | None:
    """Return the last loss; raise at the first that is not finite. `first`: step of losses[0]."""
    values = losses.cpu()
    bad = (~values.isfinite()).nonzero()[:, 0]
    if len(bad) == 0:
        return values[-1].item()
    at = int(bad[0])
    raise TrainingFailed(stage, first + at, values[at - 1].item() if at else before)

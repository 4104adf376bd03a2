"""The training step: the only forward pass, backward pass and optimizer step of the package.

A step has three parts. `load` makes the decisions that need Python, and copies the batch to the
device if the samples are not there. `compute` only uses tensors: it does not wait for the device
and changes no Python state, so a device can capture it and replay it (`training.graph`). It finds
its batch by a counter on the device, so between two replays nothing must be copied. `settle` does
occasional work on the host. Some steps may wait for the device and always run eagerly: see `eager`.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from debiasbench.common.errors import OptionError
from debiasbench.common.randomness import Randomness, generator
from debiasbench.common.seeds import derive
from debiasbench.core.modes import normalises
from debiasbench.core.moment import Moment
from debiasbench.sparsity import Flops, count_flops
from debiasbench.training.feed import Feed
from debiasbench.training.optimizers import (
    Schedule,
    carry_over,
    laid_out_as,
    make_optimizer,
    parameter_groups,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from debiasbench.core.component import ComponentLike
    from debiasbench.core.data import Batch
    from debiasbench.core.stage import Stage, Stream
    from debiasbench.training.execution import Execution
    from debiasbench.training.precision import Numerics


def _unobserved(_part: str) -> None:
    """Do nothing."""


class Step:
    """Takes the training steps of a stage.

    `micro_batch`: samples computed at a time; None computes the whole batch. `observe` is called
    after each part of a step with its name: data, forward, backward, optimizer or sparsity.
    `losses`: of the steps of this epoch, (steps per epoch,) on the device, allocated once.
    `random`: the global generators, from which modules such as dropout draw.
    """

    def __init__(
        self,
        stage: Stage,
        execution: Execution,
        numerics: Numerics,
        micro_batch: int | None = None,
        observe: Callable[[str], None] = _unobserved,
    ) -> None:
        device = execution.device
        self._stage, self._device, self._numerics = stage, device, numerics
        self._team, self._micro_batch, self._observe = execution.team, micro_batch, observe
        rank = execution.team.rank
        purpose = ["modules"] if rank == 0 else ["modules", rank]
        self.random = Randomness(derive(stage.seed, *purpose), device)
        self._extra = {name: values.to(device) for name, values in stage.extra.items()}
        if stage.each_epoch is not None:  # it changes them in place
            self._extra = {name: values.clone() for name, values in self._extra.items()}
        self._at_least = 1 + normalises(stage.objective)  # samples in a part
        self.optimizer = make_optimizer(
            stage.objective.parameters(),
            stage.settings,
            groups=parameter_groups(stage.objective),
            tensor_lr=numerics.graphs,
        )
        if stage.optimizer is not None:
            carry_over(stage.optimizer, self.optimizer, stage.objective)
        self.schedule = Schedule(
            self.optimizer,
            stage.settings,
            steps=stage.steps,
            steps_per_epoch=len(stage.batches),
        )
        self._scaler = numerics.scaler(device)
        self._augment = torch.Generator(device) if stage.view.prepare.augments else None
        self.loss = torch.zeros((), device=device)  # of the last step
        # if batches change between epochs, an epoch may become as long as a pass over the split
        longest = 0 if stage.each_epoch is None else len(stage.view)
        most = max(len(stage.batches), -(-longest // stage.batches.batch_size))
        self.losses = torch.zeros(most, device=device)
        self.flops = Flops()  # of the first forward pass, of `counted` samples
        self.counted = 0
        self._number = 0
        self._turn = torch.zeros(1, dtype=torch.long, device=device)  # the batch that is next
        self._before = torch.zeros((), dtype=torch.long, device=device)  # steps of earlier epochs
        self._epoch = torch.zeros((), dtype=torch.long, device=device)
        self._moment = Moment(self._before, self._turn, self._epoch, stage.steps)
        self._feed = Feed(
            stage.view,
            device,
            samples=max(stage.batches.epoch_size, longest),
            batches=most,
            largest=min(stage.batches.batch_size, max(stage.batches.largest, longest)),
        )
        self._beside = None if stage.beside is None else _second_feed(stage.beside, most, stage)
        self._counting = 0
        never = [False] * len(stage.components)
        self._follows = never  # for each component: whether its update follows this step
        self._postponed = never  # for each component: whether fp16 skipped the step of its update

    @property
    def samples(self) -> int:
        """Samples of the loaded batch."""
        return self._feed.size

    @property
    def shape(self) -> tuple[int, ...]:
        """What two steps must share that one graph computes: sizes and widths of their batches."""
        beside = () if self._beside is None else self._beside.shape
        return (*self._feed.shape, *beside)

    def begin_epoch(
        self, batches: Sequence[Tensor], turn: int = 0, *, number: int = 0, epoch: int = 0
    ) -> None:
        """Begin an epoch of batches of sample indices, or continue with batch `turn`.

        `number`: steps before this epoch. `epoch`: epochs before it.
        """
        self._turn.fill_(turn)
        self._before.fill_(number)
        self._epoch.fill_(epoch)
        self._feed.begin_epoch(batches, turn)
        if self._beside is not None and self._stage.beside is not None:
            rng = generator(self._stage.seed, "beside", epoch)
            self._beside.begin_epoch(self._stage.beside.drawn(len(batches), rng), turn)

    def replace_extra(self, extra: Mapping[str, Tensor]) -> None:
        """Write new values of the stage's `extra` tensors, in place."""
        for name, values in extra.items():
            self._extra[name].copy_(values)

    def load(self, number: int, turn: int) -> None:
        """Prepare step `number` (from 0), on batch `turn` of the epoch."""
        stage, self._number = self._stage, number
        if self._augment is not None:  # seeded for each step, so it has no state to restore
            self._augment.manual_seed(derive(stage.seed, "augment", number))
        for feed in (self._feed, self._beside):
            if feed is not None:
                feed.load(turn)
        due = [component.due(number) for component in stage.components]
        self._follows = [d or late for d, late in zip(due, self._postponed, strict=True)]
        self._postponed = [False] * len(due)

    @property
    def eager(self) -> bool:
        """Whether the loaded step must run eagerly.

        This holds for the first step, in which FLOPs are counted, for steps that the update of a
        component follows, in fp16, whose loss scaler decides on the host, and for teams of several
        processes.
        """
        first = self.counted == 0
        return first or any(self._follows) or self._scaler.is_enabled() or self._team.size > 1

    @property
    def generators(self) -> list[torch.Generator]:
        """The generators that `compute` draws from, without the global ones."""
        return [] if self._augment is None else [self._augment]

    def changed(self) -> list[Tensor]:
        """Return all tensors that `compute` changes: weights, buffers, optimizer state, losses."""
        objective, state = self._stage.objective, self.optimizer.state
        kept = [v for values in state.values() for v in values.values() if isinstance(v, Tensor)]
        own = [self.loss, self.losses, self._turn]
        return [*objective.parameters(), *objective.buffers(), *kept, *own]

    def compute(self) -> None:
        """Update the weights with the gradients of the batch; store its loss in `losses`."""
        stage, components, scaler = self._stage, self._stage.components, self._scaler
        batch = self._batch()
        self._observe("data")
        self.optimizer.zero_grad()
        self._observe("optimizer")
        share, weight = self._team.share(batch)
        losses = [
            self._backward(part, weight * len(part) / len(share))
            for part in share.parts(self._micro_batch, self._at_least)
        ]
        self.loss.copy_(losses[0] if len(losses) == 1 else torch.stack(losses).sum())
        self._team.add_up(stage.objective, self.loss)
        self.losses.index_copy_(0, self._turn, self.loss[None])
        scaler.unscale_(self.optimizer)
        self._observe("optimizer")
        if any(self._follows) and self._overflowed():
            self._postponed, self._follows = self._follows, self._postponed
        for component, follows in zip(components, self._follows, strict=True):
            component.constrain_gradients(update_follows=follows)
        self._observe("sparsity")
        if stage.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(stage.objective.parameters(), stage.settings.clip_norm)
        if any(c.update_replaces_step for c in self._updating()):
            self.optimizer.zero_grad()  # no weight changes, not even by weight decay
        scaler.step(self.optimizer)
        scaler.update()
        self._observe("optimizer")
        for component, follows in zip(components, self._follows, strict=True):
            if not follows:  # an update constrains the weights itself
                component.constrain_weights()
        self._turn.add_(1)
        self._observe("sparsity")

    def settle(self) -> None:
        """Do the work on the host that follows this step: topology updates and the schedule."""
        self.counted = self.counted or self._counting
        for component in self._updating():
            component.update(self._number)
        self._observe("sparsity")
        self.schedule.after_step()
        self._observe("optimizer")

    def _updating(self) -> list[ComponentLike]:
        """Return the components whose update follows this step."""
        pairs = zip(self._stage.components, self._follows, strict=True)
        return [component for component, follows in pairs if follows]

    def _batch(self) -> Batch:
        beside = None if self._beside is None else self._fed(self._beside, {})
        return self._fed(self._feed, self._extra, moment=self._moment, beside=beside)

    def _fed(
        self,
        feed: Feed,
        extra: Mapping[str, Tensor],
        *,
        moment: Moment | None = None,
        beside: Batch | None = None,
    ) -> Batch:
        index = feed.index(self._turn)  # (B,)
        stored = feed.samples(index)
        batch = feed.view.batch(stored, index, extra, self._augment, moment=moment, beside=beside)
        batch.x = self._numerics.laid_out(batch.x)
        return batch

    def _backward(self, part: Batch, share: float) -> Tensor:
        """Add the gradients of a part of the batch; return the part's share of the loss."""
        objective, first = self._stage.objective, not self.counted
        self._counting += len(part) if first else 0
        counting = count_flops(objective, self.flops) if first else nullcontext()
        eager = self._numerics.counting() if first else nullcontext()
        with counting, eager, self._numerics.autocast(self._device):
            loss = self._loss(part)
        self._observe("forward")
        if share != 1:
            loss = loss * share
        torch.autograd.backward(self._scaler.scale(loss))
        self._observe("backward")
        detached: Tensor = loss.detach()
        return detached

    def _loss(self, part: Batch) -> Tensor:
        """Return the loss of a part of the batch, after checking what the objective returned."""
        stage = self._stage
        try:
            return _checked_loss(stage.objective(part), stage=stage)
        except ValueError as error:
            if len(part) > 1 or "more than 1 value per channel" not in str(error):
                raise
            few = stage.settings.batch_size > 1
            advice = "train on more samples" if few else "use --batch-size 2 or more"
            raise OptionError(
                f"BatchNorm cannot normalise a batch of 1 sample in stage {stage.name!r}: {advice}"
            ) from error

    def _overflowed(self) -> bool:
        """Return whether the loss scaler will skip this step."""
        if not self._scaler.is_enabled():
            return False
        gradients = [p.grad for p in self._stage.objective.parameters() if p.grad is not None]
        return not all(bool(gradient.isfinite().all()) for gradient in gradients)

    def state_dict(self) -> dict[str, object]:
        """Return everything that resuming needs, without weights and components."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "postponed": list(self._postponed),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state, after the weights were restored."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            if isinstance(rate, Tensor):  # it stays on its device, where graphs read it
                group["lr"] = rate.copy_(group["lr"])
        for p, values in self.optimizer.state.items():
            self.optimizer.state[p] = laid_out_as(p, values)
        self.schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
        self._postponed = list(state["postponed"])


def _second_feed(stream: Stream, batches: int, stage: Stage) -> Feed:
    """Return the feed of a stage's second stream, whose batches all have one size."""
    size = stream.batches.largest
    return Feed(
        stream.view,
        stage.view.samples.device,
        samples=batches * size,
        batches=batches,
        largest=size,
        ahead=stream.view.samples is not stage.view.samples,
    )


def _checked_loss(loss: object, *, stage: Stage) -> Tensor:
    """Return what an objective returned; raises `TypeError` unless it is a loss to minimise."""
    if isinstance(loss, Tensor) and loss.dim() == 0 and loss.requires_grad:
        return loss
    advice = "it depends on no weight that is trained"
    if not isinstance(loss, Tensor):
        advice = f"it is {type(loss).__name__}, must be a tensor"
    elif loss.dim():
        advice = f"it has the shape {tuple(loss.shape)}, must be a scalar: return its mean"
    raise TypeError(
        f"the loss of stage {stage.name!r} ({type(stage.objective).__name__}) cannot be minimised: "
        f"{advice}"
    )

"""A model's weights under masks that change in place: the state of one sparse training."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from debiasbench.sparsity.criteria import first_masks
from debiasbench.sparsity.errors import NotAttached, SparsityError
from debiasbench.sparsity.factors import Factors
from debiasbench.sparsity.flops import Ledger
from debiasbench.sparsity.guards import (
    check_finite,
    check_flags,
    check_holds,
    check_ranks,
    check_same_shapes,
    check_updated,
)
from debiasbench.sparsity.hooks import Hooks
from debiasbench.sparsity.layer import Layer
from debiasbench.sparsity.masks import pack, unpack
from debiasbench.sparsity.params import layouts, left_dense, matching_any, select, tied
from debiasbench.sparsity.stats import statistics
from debiasbench.sparsity.transfer import finite_flags, to_host

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from debiasbench.sparsity.algorithm import Algorithm
    from debiasbench.sparsity.flops import Flops, TrainingFlops
    from debiasbench.sparsity.stats import Stats

STATE_VERSION = 1


class SparseTraining:
    """Masks, and what holds a model to them; `Updater.attach` makes one with hooks.

    `masks`: bool, by parameter name, allocated once and changed in place; `step`: optimizer steps
    taken, without those that a `GradScaler` skipped; `updates`: of the topology; `explored`:
    bool, active at any time; `dense`: names of the other weights of the model, which `density` does
    not count; `tied`: other names of sparse weights, by name. With hooks the training loop stays as
    it is. Without (`hooks=False`) whoever owns the step calls `due`, `constrain_gradients`,
    `constrain_weights` and `update`. Gradients are read when the optimizer steps, so under data
    parallelism they are the reduced gradients and masks stay equal on all ranks, which every update
    checks.
    """

    def __init__(
        self,
        updater: Algorithm,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        steps_per_epoch: int | None,
        seed: int,
        densities: Mapping[str, float] | None = None,
        masks: Mapping[str, Tensor] | None = None,
        hooks: bool = True,
    ) -> None:
        self.updater, self.seed, self.total_steps = updater, seed, total_steps
        self.step = self.updates = 0
        self.weights = select(model, include=updater.include, exclude=updater.exclude)
        self.layouts = layouts(model)
        self.dense, self.tied = left_dense(model, self.weights), tied(model, self.weights)
        self._every = updater.interval().steps(total_steps, steps_per_epoch)
        self._dense = matching_any(updater.keep_dense, self.weights)
        check_holds(optimizer, self.weights)
        first = first_masks(
            updater, self.weights, self.layouts, self._dense, seed, densities, masks
        )
        if updater.prunes:  # or an error would come after most of the training
            by_output = {name: self.layouts[name].by_output(mask) for name, mask in first.items()}
            updater.check_end({n: mask.shape for n, mask in by_output.items()}, self._dense)
        # strides as those of the weights: a device multiplies both in the order of memory
        self.masks = {
            name: torch.empty_like(p, dtype=torch.bool, requires_grad=False).copy_(first[name])
            for name, p in self.weights.items()
        }
        self.explored = {name: mask.clone() for name, mask in self.masks.items()}
        self._waits_for_gradients = updater.init.startswith("snip") and masks is None
        self._first_taken = False  # whether the first masks were taken in this step
        self._budgets = self._counts = self._count()
        self.grown = dict.fromkeys(self.masks, 0)  # weights that became active, over all updates
        self.exchanged_last = 0
        self.ledger = Ledger({n: m.numel() for n, m in self.masks.items()})
        self._gradients: dict[str, Tensor] = {}  # kept for the update that follows
        self._optimizer = optimizer
        self._hooks: Hooks | None = None
        self._factors = Factors(self.weights, self.masks)
        self._apply()
        if updater.optimizer_state == "mask":
            for name, p in self.weights.items():
                self._zero_state(p, self.masks[name])
        if hooks:
            self._hooks = Hooks(self, optimizer)

    # --- for a training loop with hooks -------------------------------------------------------

    def mask_gradients(self) -> None:
        """Set inactive gradients to 0 now; call it before clipping, which they would inflate.

        Without clipping the optimizer's step does it. Under a `GradScaler`, after `unscale_`.
        """
        if self._hooks is not None:
            self._hooks.mask_gradients()

    def reattach(self, optimizer: Optimizer, model: nn.Module | None = None) -> None:
        """Follow another optimizer, such as a copied or newly loaded one, from now on.

        Hooks do not survive copying or pickling an optimizer. `model`: if its parameters changed
        too. Raises `SparsityError` if they do not fit, and nothing changes.
        """
        weights, layout = self.weights, self.layouts
        if model is not None:
            weights = select(model, include=self.updater.include, exclude=self.updater.exclude)
            layout = layouts(model)
            check_same_shapes({n: m.shape for n, m in self.masks.items()}, weights)
        check_holds(optimizer, weights)
        self.weights, self.layouts = weights, layout
        self.detach()
        self._optimizer = optimizer
        self._factors = Factors(weights, self.masks)
        self._apply()
        self._hooks = Hooks(self, optimizer)

    def detach(self) -> None:
        """Stop following the optimizer; the weights stay as they are."""
        if self._hooks is not None:
            self._hooks.remove()

    # --- the step, driven by hooks or by its owner --------------------------------------------

    @property
    def update_replaces_step(self) -> bool:
        """Whether an update takes the place of an optimizer step."""
        return self.updater.update_replaces_step

    def due(self, step: int) -> bool:
        """Return whether `update` must follow this step (from 0), and count the step as taken.

        For the owner of the step, who calls it before each step; hooks count by themselves.
        """
        self.step = step + 1
        return self._waits_for_gradients or self.is_due(step)

    def is_due(self, step: int) -> bool:
        """Return whether the topology changes after this step (from 0)."""
        updater, done = self.updater, step + 1
        if not updater.changes:
            return False
        stop = self._stop()
        if updater.prunes and done == int(stop):
            return True  # the density asked for is reached exactly
        return updater.updates_after(done, self._every, updater.start * self.total_steps, stop)

    @torch.no_grad()
    def constrain_gradients(self, *, update_follows: bool) -> None:
        """Set inactive gradients to 0, in place; keep a copy of those that `update` will read."""
        if update_follows and self._waits_for_gradients and self._hooks is None:
            self.take_first_masks(self.step - 1)
            self._first_taken = True
        if update_follows and self.updater.reads() != "weights":
            keep = self.updater.optimizer_state == "dense"  # nothing below changes them
            self._gradients = {
                name: p.grad if keep else p.grad.clone()
                for name, p in self.weights.items()
                if p.grad is not None
            }
        if self.updater.optimizer_state != "dense" and not self._waits_for_gradients:
            self._factors.multiply([p.grad for p in self.weights.values()])

    @torch.no_grad()
    def constrain_weights(self) -> None:
        """Set inactive weights to 0, in place."""
        # also where gradients and optimizer state are masked: steps may mix weights, and other code
        # may change gradients or state after they were masked
        self._apply()

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Change the topology after this step (from 0); weights that grow start at 0.

        Raises `NonFiniteGradient` for gradients that cannot be compared.
        """
        taken, self._first_taken = self._first_taken, False
        if taken and not self.is_due(step):
            self.check_kept_gradients(step)
            self.constrain_weights()
        else:  # also later than it was due, as in fp16
            self._update(step)
        self._gradients = {}

    def check_kept_gradients(self, step: int) -> None:
        """Raise `NonFiniteGradient` if a gradient kept for the update is NaN or infinite."""
        check_finite(self._gradients, step)

    def forget_gradients(self) -> None:
        """Drop the gradients kept for an update."""
        self._gradients = {}

    def waits_for_gradients(self) -> bool:
        """Return whether the first masks depend on gradients that are not there yet (SNIP)."""
        return self._waits_for_gradients

    def take_first_masks(self, step: int) -> None:
        """Score connections by this step's gradients, those of the dense network (SNIP)."""
        gradients = {n: p.grad for n, p in self.weights.items() if p.grad is not None}
        check_finite(gradients, step)
        frozen = {name for name, p in self.weights.items() if not p.requires_grad}
        dense = self._dense | frozen
        masks = first_masks(
            self.updater, self.weights, self.layouts, dense, self.seed, gradients=gradients
        )
        self._waits_for_gradients = False
        self._account(step + 1, dense_gradients=False)
        for name, mask in masks.items():
            self.masks[name].copy_(mask)
            self.explored[name].copy_(mask)
        self._factors.follow()
        self._budgets = self._counts = self._count()
        self._apply()
        check_ranks(self.masks)

    # --- what it is like now ------------------------------------------------------------------

    def densities(self) -> dict[str, float]:
        """Fraction of active weights by parameter name."""
        return {name: count / self.masks[name].numel() for name, count in self._counts.items()}

    @property
    def density(self) -> float:
        """Fraction of active weights over all that may be sparse."""
        return sum(self._counts.values()) / sum(m.numel() for m in self.masks.values())

    @property
    def settled(self) -> bool:
        """Whether the density is the one asked for and stays there."""
        pruned = not self.updater.prunes or self.step >= int(self._stop())
        return pruned and not self._waits_for_gradients

    def stats(self) -> Stats:
        """Return layers, exploration, churn and dead units as they are now.

        Raises `NotAttached` if weights off the mask are not 0: the density would not be real.
        """
        self.check()
        return statistics(self)

    def training_flops(self, flops: Flops) -> TrainingFlops:
        """Return the average cost of a step, where `flops` counted one dense forward pass."""
        self._account(self.step)
        return self.ledger.training(flops)

    def saved_flops(self, forward: Mapping[str, float]) -> float:
        """Return FLOPs saved per step against three dense passes; `forward` as in `Flops`."""
        self._account(self.step)
        return self.ledger.saved(forward)

    def state_dict(self) -> dict[str, object]:
        """Return everything that resuming bit for bit needs: packed masks, counters, the ledger."""
        self.check()
        self._account(self.step)
        return {
            "version": STATE_VERSION,
            "updater": _config(self.updater),
            "seed": self.seed,
            "step": self.step,
            "updates": self.updates,
            "exchanged_last": self.exchanged_last,
            "waits_for_scores": self._waits_for_gradients,
            "shapes": {name: list(mask.shape) for name, mask in self.masks.items()},
            "masks": {name: pack(mask) for name, mask in self.masks.items()},
            "explored": {name: pack(mask) for name, mask in self.explored.items()},
            "budgets": dict(self._budgets),
            "grown": dict(self.grown),
            "ledger": self.ledger.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state, in place; load model and optimizer first.

        Raises `SparsityError` for a state of other layers, settings or version; nothing changes.
        """
        if state.get("version") != STATE_VERSION:
            raise SparsityError(f"This state has version {state.get('version')!r}, not 1")
        shapes = {name: torch.Size(shape) for name, shape in state["shapes"].items()}
        check_same_shapes(shapes, self.weights)
        if state["updater"] != _config(self.updater):
            raise SparsityError(
                f"This state was made by {state['updater']}, not by {_config(self.updater)}"
            )
        for masks, packed in ((self.masks, state["masks"]), (self.explored, state["explored"])):
            for name, mask in masks.items():
                mask.copy_(unpack(packed[name], mask.shape))
        self.seed, self.step, self.updates = state["seed"], state["step"], state["updates"]
        self.exchanged_last = state["exchanged_last"]
        self._waits_for_gradients = state["waits_for_scores"]
        self._budgets, self.grown = dict(state["budgets"]), dict(state["grown"])
        self._factors.follow()
        self._counts = self._count()
        self.ledger.load_state_dict(state["ledger"])
        self._apply()
        if self._hooks is not None:
            self._hooks.note_versions()

    @torch.no_grad()
    def check(self) -> None:
        """Raise `NotAttached` if weights off the mask are not 0."""
        off = [((p != 0) & ~self.masks[name]).any() for name, p in self.weights.items()]
        for name, found in zip(self.weights, to_host(off), strict=True):
            if found:
                raise NotAttached(
                    f"{name} has non-zero weights off its mask. Either an optimizer stepped that "
                    "this sparse training does not follow (call reattach(optimizer) after copying "
                    "or loading an optimizer), or weights were loaded without their masks, or they "
                    "were moved by gradients that were not masked (as in sharpness-aware "
                    "minimisation: call mask_gradients() after each backward pass)"
                )

    # --- updates ---------------------------------------------------------------------------------

    def _stop(self) -> float:
        """Return the steps after which the topology stays; pruning needs one step at least."""
        return max(1.0, self.updater.stop * self.total_steps)

    def progress(self, step: int | None = None) -> float:
        """Return how far a step (default: the next) is on the way to `stop`, in [0, 1]."""
        done = (self.step if step is None else step) + 1
        begin, end = self.updater.start * self.total_steps, self._stop()
        if self.updater.prunes and done >= int(end):
            return 1.0
        return min(1.0, max(0.0, (done - begin) / (end - begin)))

    def _update(self, step: int) -> None:
        """Replace the masks by the updater's; weights that were frozen keep theirs."""
        names = [name for name, p in self.weights.items() if p.requires_grad]
        if not names:
            self.check_kept_gradients(step)
            return
        scale = getattr(self._optimizer, "grad_scale", None)
        layers = []
        for name in names:
            p, by_output = self.weights[name], self.layouts[name].by_output
            gradient = _unscaled(self._gradients.get(name), scale)
            state = self._optimizer.state.get(p, {})
            layers.append(
                Layer(
                    name=name,
                    weight=by_output(p.detach()),
                    mask=by_output(self.masks[name]),
                    active=self._counts[name],
                    budget=self._budgets[name],
                    gradient=None if gradient is None else by_output(gradient),
                    state={k: by_output(v) if _fits(v, p) else v for k, v in state.items()},
                    explored=by_output(self.explored[name]),
                    last=name == names[-1],
                    dense=name in self._dense,
                    seed=self.seed,
                    step=step,
                )
            )
        # nothing has changed yet, in case of an error
        new, grown, active, exchanged = self._new_masks(layers, step)
        self._account(step + 1, dense_gradients=self.updater.reads() == "gradients")
        for name in names:
            p, old = self.weights[name], self.masks[name]
            p.masked_fill_(grown[name], 0.0)  # it may have moved while inactive
            if self.updater.optimizer_state != "dense":
                stays = self.updater.optimizer_state == "reset_new"
                self._zero_state(p, ~grown[name] if stays else new[name] & old)
            self.explored[name] |= new[name]
            self.grown[name] += exchanged[name]
            old.copy_(new[name])
        self.exchanged_last = sum(exchanged.values())
        self._counts = {**self._counts, **active}
        self._factors.follow()
        self._apply()
        self.updates += 1
        check_ranks(self.masks)

    def _new_masks(
        self, layers: Sequence[Layer], step: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, int], dict[str, int]]:
        """Return the updater's masks and the weights that they grow, and how many are in each.

        Counts are copied from the device together, and with them whether gradients are finite. It
        is the only time that an update waits, unless the updater itself does.
        """
        flags = [finite_flags(list(self._gradients.values()))] if self._gradients else []
        try:
            returned = self.updater.update(layers, self.progress(step))
        except Exception:
            self.check_kept_gradients(step)  # if they are not finite, that may be the cause
            raise
        check_updated(type(self.updater).__name__, layers, returned)
        new = {x.name: self.layouts[x.name].stored(returned[x.name]) for x in layers}
        grown = {name: mask & ~self.masks[name] for name, mask in new.items()}
        # on a CPU ten times faster than sums
        counts = [mask.count_nonzero() for masks in (new, grown) for mask in masks.values()]
        numbers = to_host([*counts, *flags])
        check_flags(self._gradients, numbers[len(counts) :], step)
        active = dict(zip(new, numbers, strict=False))
        return new, grown, active, dict(zip(new, numbers[len(new) :], strict=False))

    # --- helpers ------------------------------------------------------------------------------

    def _apply(self) -> None:
        self._factors.multiply([p.data for p in self.weights.values()])

    def _zero_state(self, p: nn.Parameter, keep: Tensor) -> None:
        """Set gradient and optimizer state (momentum, Adam moments) to 0 outside `keep`."""
        for value in (p.grad, *self._optimizer.state.get(p, {}).values()):
            if _fits(value, p):
                value.mul_(keep)

    def _count(self) -> dict[str, int]:
        counts = to_host([mask.count_nonzero() for mask in self.masks.values()])
        return dict(zip(self.masks, counts, strict=True))

    def _account(self, until: int, *, dense_gradients: bool = False) -> None:
        """Charge all steps before `until` that are not charged yet."""
        updater = self.updater
        always = updater.optimizer_state == "dense" or updater.reads() == "all gradients"
        self.ledger.charge(self._counts, until, always_dense=always, dense_last=dense_gradients)


def _fits(value: Any, p: Tensor) -> bool:
    """Return whether a gradient or a part of the optimizer's state has a value for each weight."""
    return isinstance(value, torch.Tensor) and value.shape == p.shape


def _unscaled(gradient: Tensor | None, scale: Tensor | None) -> Tensor | None:
    """Divide by the scale of a `GradScaler` where the fused optimizer does so after the hook."""
    return gradient if gradient is None or scale is None else gradient / scale


def _config(updater: Algorithm) -> dict[str, object]:
    options: Any = updater  # a dataclass
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(options).items()}
    return {"name": type(updater).__name__, **settings}

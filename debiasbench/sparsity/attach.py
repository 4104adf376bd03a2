"""A model made sparse and kept so by hooks on its optimizer: the training loop does not change."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from debiasbench.sparsity.criteria import first_masks
from debiasbench.sparsity.errors import NonFiniteGradient, NotAttached, SparsityError
from debiasbench.sparsity.flops import Ledger
from debiasbench.sparsity.guards import check_holds, check_ranks, check_same_shapes
from debiasbench.sparsity.masks import pack, unpack
from debiasbench.sparsity.params import matching_any, select
from debiasbench.sparsity.stats import statistics
from debiasbench.sparsity.updater import Layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from debiasbench.sparsity.flops import Flops, TrainingFlops
    from debiasbench.sparsity.stats import Stats
    from debiasbench.sparsity.updater import Updater

STATE_VERSION = 1


class SparseTraining:
    """Masks, and the hooks that hold a model to them; made by `Updater.attach`.

    `masks`: bool, by parameter name; `step`: optimizer steps taken, skipped ones of a
    `GradScaler` not counted; `updates`: of the topology; `explored`: bool, active at any time.
    Gradients are read when the optimizer steps, so under data parallelism they are the reduced
    ones and masks stay equal on all ranks, which every update checks.
    """

    def __init__(
        self,
        updater: Updater,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        steps_per_epoch: int | None,
        seed: int,
        densities: Mapping[str, float] | None,
        masks: Mapping[str, Tensor] | None,
    ) -> None:
        self.updater, self.seed, self.total_steps = updater, seed, total_steps
        self.step = self.updates = 0
        self.weights = select(model, include=updater.include, exclude=updater.exclude)
        self._every = updater.interval().steps(total_steps, steps_per_epoch)
        self._dense = matching_any(updater.keep_dense, self.weights)
        check_holds(optimizer, self.weights)
        self.masks = first_masks(updater, self.weights, self._dense, seed, densities, masks)
        self.explored = {name: mask.clone() for name, mask in self.masks.items()}
        self._waits_for_scores = updater.init.startswith("snip") and masks is None
        self._budgets = self._counts = self._count()
        self.grown = dict.fromkeys(self.masks, 0)  # weights that came in, over all updates
        self.exchanged_last = 0
        self.ledger = Ledger({n: m.numel() for n, m in self.masks.items()})
        self._gradients: dict[str, Tensor] = {}
        self._prepared = self._skipped = False
        self._handles: list[Any] = []
        self._follow(optimizer)
        self._apply()
        if updater.optimizer_state == "mask":
            for name, p in self.weights.items():
                self._zero_state(p, self.masks[name])
        self._note_versions()

    # --- what a training loop may call --------------------------------------------------------

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Empty inactive gradients now; call it before clipping, which they would inflate.

        Without clipping the optimizer's step does it. Under a `GradScaler`, after `unscale_`.
        """
        self._gradients = {}
        if self._is_due() and self.updater.reads() != "weights":
            keep = self.updater.optimizer_state == "dense"  # nothing below changes them
            self._gradients = {
                name: p.grad if keep else p.grad.clone()
                for name, p in self.weights.items()
                if p.grad is not None
            }
        if self.updater.optimizer_state != "dense" and not self._waits_for_scores:
            self._mask([p.grad for p in self.weights.values()])
        self._prepared = True

    def reattach(self, optimizer: Optimizer, model: nn.Module | None = None) -> None:
        """Follow another optimizer, such as a copied or newly loaded one, from here on.

        Hooks do not survive copying or pickling an optimizer. `model`: if its parameters are
        others too. Raises `SparsityError` if they do not fit, and nothing changes.
        """
        weights = self.weights
        if model is not None:
            weights = select(model, include=self.updater.include, exclude=self.updater.exclude)
            check_same_shapes({n: m.shape for n, m in self.masks.items()}, weights)
        check_holds(optimizer, weights)
        self.weights = weights
        self._follow(optimizer)
        self._apply()
        self._note_versions()

    def detach(self) -> None:
        """Follow the optimizer no longer; the weights stay as they are."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def densities(self) -> dict[str, float]:
        """Fraction of active weights by parameter name."""
        return {name: count / self.masks[name].numel() for name, count in self._counts.items()}

    @property
    def density(self) -> float:
        """Fraction of active weights over all that may be sparse."""
        return sum(self._counts.values()) / sum(m.numel() for m in self.masks.values())

    @property
    def settled(self) -> bool:
        """Whether the density is the one asked for, and will stay so."""
        pruned = not self.updater.prunes or self.step >= int(self._stop())
        return pruned and not self._waits_for_scores

    def stats(self) -> Stats:
        """Count layers, exploration, churn and dead units as they are now."""
        return statistics(self)

    def training_flops(self, flops: Flops) -> TrainingFlops:
        """Return what a step cost on average, where `flops` counted one dense forward pass."""
        self._account(self.step)
        return self.ledger.training(flops)

    def saved_flops(self, forward: Mapping[str, float]) -> float:
        """Return what a step saved against three dense passes; `forward` as in `Flops`."""
        self._account(self.step)
        return self.ledger.saved(forward)

    def state_dict(self) -> dict[str, object]:
        """Return all that is needed to go on bit for bit: packed masks, counters, the ledger."""
        self.check()
        self._account(self.step)
        return {
            "version": STATE_VERSION,
            "updater": _config(self.updater),
            "seed": self.seed,
            "step": self.step,
            "updates": self.updates,
            "exchanged_last": self.exchanged_last,
            "waits_for_scores": self._waits_for_scores,
            "shapes": {name: list(mask.shape) for name, mask in self.masks.items()},
            "masks": {name: pack(mask) for name, mask in self.masks.items()},
            "explored": {name: pack(mask) for name, mask in self.explored.items()},
            "budgets": dict(self._budgets),
            "grown": dict(self.grown),
            "ledger": self.ledger.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a state up again, in place; load model and optimizer before.

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
        for mine, packed in ((self.masks, state["masks"]), (self.explored, state["explored"])):
            for name, mask in mine.items():
                mask.copy_(unpack(packed[name], mask.shape))
        self.seed, self.step, self.updates = state["seed"], state["step"], state["updates"]
        self.exchanged_last = state["exchanged_last"]
        self._waits_for_scores = state["waits_for_scores"]
        self._budgets, self.grown = dict(state["budgets"]), dict(state["grown"])
        self._counts = self._count()
        self.ledger.load_state_dict(state["ledger"])
        self._apply()
        self._note_versions()

    @torch.no_grad()
    def check(self) -> None:
        """Raise `NotAttached` if something else moved weights off the mask."""
        for name, p in self.weights.items():
            if bool(((p != 0) & ~self.masks[name]).any()):
                raise NotAttached(
                    f"{name} has weights off its mask: an optimizer stepped that this sparse "
                    "training does not follow (call reattach(optimizer) after copying or loading "
                    "one), or other weights were loaded without their masks"
                )

    # --- the hooks ----------------------------------------------------------------------------

    def _follow(self, optimizer: Optimizer) -> None:
        self.detach()
        self._optimizer = optimizer
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]
        watched = next((p for p in self.weights.values() if p.requires_grad), None)
        if watched is not None:  # runs once a backward pass, outside of any compiled graph
            watch: Any = watched.register_post_accumulate_grad_hook  # torch types it not
            self._handles.append(watch(self._watch))

    def _watch(self, _: Tensor) -> None:
        """Notice, where it is cheap, that another optimizer has stepped."""
        if self._versions != [p._version for p in self.weights.values()]:
            self.check()
            self._note_versions()

    @torch.no_grad()
    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: Any) -> None:
        if len(args) > 1 or kwargs.get("closure") is not None:
            raise SparsityError("Steps with a closure cannot be followed: compute gradients before")
        found_inf = getattr(optimizer, "found_inf", None)  # a fused optimizer skips by itself
        self._skipped = found_inf is not None and bool(found_inf)
        if self._skipped:
            return
        if self._waits_for_scores:
            self._take_first_masks()
        if not self._prepared:
            self.mask_gradients()
        self._check_finite(self._gradients)
        if self._is_due() and self.updater.update_replaces_step:
            self._update()
            optimizer.zero_grad(set_to_none=True)  # nothing moves, weight decay included

    @torch.no_grad()
    def _after(self, _o: Optimizer, _a: tuple[Any, ...], _k: Any) -> None:
        self._prepared = False
        if self._skipped:
            return
        if self._is_due() and not self.updater.update_replaces_step:
            self._update()
        elif self.updater.optimizer_state != "mask":
            self._apply()
        self.step += 1
        self._gradients = {}
        self._note_versions()

    def _is_due(self) -> bool:
        updater, done = self.updater, self.step + 1
        if not updater.changes:
            return False
        stop = self._stop()
        if updater.prunes and done == int(stop):
            return True  # the density asked for is reached exactly
        return done % self._every == 0 and updater.start * self.total_steps < done < stop

    def _stop(self) -> float:
        """Steps after which the topology stays; a pruning updater needs one at least."""
        return max(1.0, self.updater.stop * self.total_steps)

    def progress(self) -> float:
        """Return how far the step to come is on the way to `stop`, in [0, 1]."""
        begin, end = self.updater.start * self.total_steps, self._stop()
        if self.updater.prunes and self.step + 1 >= int(end):
            return 1.0
        return min(1.0, max(0.0, (self.step + 1 - begin) / (end - begin)))

    def _update(self) -> None:
        """Replace the masks by the updater's; what grew starts at 0."""
        names = list(self.weights)
        scale = getattr(self._optimizer, "grad_scale", None)
        layers = [
            Layer(
                name=name,
                weight=p.detach(),
                mask=self.masks[name],
                active=self._counts[name],
                budget=self._budgets[name],
                gradient=_unscaled(self._gradients.get(name), scale),
                state=self._optimizer.state.get(p, {}),
                explored=self.explored[name],
                last=name == names[-1],
                dense=name in self._dense,
                seed=self.seed,
                step=self.step,
            )
            for name, p in self.weights.items()
        ]
        new = self.updater.update(layers, self.progress())
        self._check_masks(new)
        self._account(self.step + 1, dense_gradients=self.updater.reads() == "gradients")
        self.exchanged_last = 0
        for name, p in self.weights.items():
            old = self.masks[name]
            grown = new[name] & ~old
            p.masked_fill_(grown, 0.0)  # it may have moved while inactive
            if self.updater.optimizer_state != "dense":
                stays = self.updater.optimizer_state == "reset_new"
                self._zero_state(p, ~grown if stays else new[name] & old)
            self.explored[name] |= new[name]
            came = int(grown.sum())
            self.grown[name] += came
            self.exchanged_last += came
        self.masks = dict(new)
        self._counts = self._count()
        self._apply()
        self.updates += 1
        check_ranks(self.masks)

    def _take_first_masks(self) -> None:
        """Score connections by the first gradients, those of the dense network (SNIP)."""
        gradients = {n: p.grad for n, p in self.weights.items() if p.grad is not None}
        self._check_finite(gradients)
        masks = first_masks(self.updater, self.weights, self._dense, self.seed, gradients=gradients)
        self._waits_for_scores = False
        self._account(self.step + 1, dense_gradients=False)
        self.masks = masks
        self.explored = {name: mask.clone() for name, mask in masks.items()}
        self._budgets = self._counts = self._count()
        self._apply()
        self._prepared = False
        check_ranks(self.masks)

    # --- helpers ------------------------------------------------------------------------------

    def _apply(self) -> None:
        self._mask([p.data for p in self.weights.values()])

    def _mask(self, values: list[Any]) -> None:
        pairs = [(v, m) for v, m in zip(values, self.masks.values(), strict=True) if v is not None]
        if pairs:
            torch._foreach_mul_([v for v, _ in pairs], [m for _, m in pairs])

    def _zero_state(self, p: nn.Parameter, keep: Tensor) -> None:
        """Zero gradient and optimizer state (momentum, Adam moments) of what is not in `keep`."""
        for value in (p.grad, *self._optimizer.state.get(p, {}).values()):
            if isinstance(value, torch.Tensor) and value.shape == p.shape:
                value.mul_(keep)

    def _count(self) -> dict[str, int]:
        return {name: int(mask.sum()) for name, mask in self.masks.items()}

    def _account(self, until: int, *, dense_gradients: bool = False) -> None:
        """Charge all steps before `until` that are not charged yet."""
        updater = self.updater
        always = updater.optimizer_state == "dense" or updater.reads() == "all gradients"
        self.ledger.charge(self._counts, until, always_dense=always, dense_last=dense_gradients)

    def _note_versions(self) -> None:
        self._versions = [p._version for p in self.weights.values()]

    def _check_finite(self, gradients: Mapping[str, Tensor]) -> None:
        for name, gradient in gradients.items():
            if not bool(gradient.isfinite().all()):
                raise NonFiniteGradient(
                    f"The gradient of {name} is not finite at step {self.step}, when the topology "
                    "is to change: lower the learning rate, or clip"
                )

    def _check_masks(self, new: Mapping[str, Tensor]) -> None:
        """Hold a stranger's updater to its word before anything changes."""
        for name, old in self.masks.items():
            mask = new.get(name)
            if mask is None or mask.shape != old.shape or mask.dtype != torch.bool:
                raise SparsityError(
                    f"{type(self.updater).__name__}.update gave no bool mask of shape "
                    f"{tuple(old.shape)} for {name}"
                )


def _unscaled(gradient: Tensor | None, scale: Tensor | None) -> Tensor | None:
    """A fused optimizer divides a `GradScaler`'s scale out in its step, after the hook."""
    return gradient if gradient is None or scale is None else gradient / scale


def _config(updater: Updater) -> dict[str, object]:
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(updater).items()}
    return {"name": type(updater).__name__, **settings}

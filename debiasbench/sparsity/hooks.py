"""Hooks on an optimizer that constrain a sparse model at every step of somebody else's loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

from debiasbench.sparsity.errors import SparsityError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


class _Constrained(Protocol):
    """What hooks drive: `debiasbench.sparsity.SparseTraining`."""

    step: int
    weights: dict[str, nn.Parameter]

    @property
    def update_replaces_step(self) -> bool: ...
    def is_due(self, step: int) -> bool: ...
    def waits_for_gradients(self) -> bool: ...
    def take_first_masks(self, step: int) -> None: ...
    def constrain_gradients(self, *, update_follows: bool) -> None: ...
    def constrain_weights(self) -> None: ...
    def check_kept_gradients(self, step: int) -> None: ...
    def update(self, step: int) -> None: ...
    def forget_gradients(self) -> None: ...
    def check(self) -> None: ...


class Hooks:
    """Follows one optimizer: constrains gradients before its step, weights and topology after."""

    def __init__(self, training: _Constrained, optimizer: Optimizer) -> None:
        _check_free(optimizer, training)
        self._training = training
        self._prepared = self._skipped = False
        self._handles: list[Any] = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]
        watched = next((p for p in training.weights.values() if p.requires_grad), None)
        if watched is not None:  # runs once per backward pass, outside any compiled graph
            register: Any = watched.register_post_accumulate_grad_hook  # torch has no type for it
            self._handles.append(register(self._watch))
        self.note_versions()

    def followed(self) -> set[int]:
        """Return the ids of the weights that are constrained."""
        return {id(p) for p in self._training.weights.values()}

    def remove(self) -> None:
        """Stop following the optimizer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Constrain the gradients now, so that the step need not."""
        training = self._training
        training.constrain_gradients(update_follows=training.is_due(training.step))
        self._prepared = True

    def note_versions(self) -> None:
        """Remember the weights as they are now, as those of this training."""
        self._versions = self._current_versions()

    def _current_versions(self) -> list[int]:
        return [p._version for p in self._training.weights.values()]

    def _watch(self, _: Tensor) -> None:
        """Notice, where it is cheap, that another optimizer has stepped."""
        if self._versions != self._current_versions():
            self._training.check()
            self.note_versions()

    @torch.no_grad()
    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: Any) -> None:
        if len(args) > 1 or kwargs.get("closure") is not None:
            raise SparsityError(
                "A step with a closure cannot be followed: compute gradients before the step"
            )
        found_inf = getattr(optimizer, "found_inf", None)  # a fused optimizer skips by itself
        self._skipped = found_inf is not None and bool(found_inf)
        if self._skipped:
            return
        training = self._training
        if training.waits_for_gradients():
            training.take_first_masks(training.step)
            self._prepared = False
        if self._prepared:  # a further backward pass may have added to the gradients since
            training.constrain_gradients(update_follows=False)
        else:
            self.mask_gradients()
        if training.is_due(training.step) and training.update_replaces_step:
            training.update(training.step)  # checks the kept gradients itself
            optimizer.zero_grad(set_to_none=True)  # nothing moves, weight decay included
        else:
            training.check_kept_gradients(training.step)

    @torch.no_grad()
    def _after(self, _o: Optimizer, _a: tuple[Any, ...], _k: Any) -> None:
        self._prepared = False
        if self._skipped:
            return
        training = self._training
        if training.is_due(training.step) and not training.update_replaces_step:
            training.update(training.step)
        else:
            training.constrain_weights()
        training.step += 1
        training.forget_gradients()
        self.note_versions()


def _check_free(optimizer: Optimizer, training: _Constrained) -> None:
    """Raise `SparsityError` if hooks of another sparse training act on the same weights."""
    weights = {id(p) for p in training.weights.values()}
    for hook in getattr(optimizer, "_optimizer_step_pre_hooks", {}).values():
        other = getattr(hook, "__self__", None)
        if isinstance(other, Hooks) and weights & other.followed():
            raise SparsityError(
                "This optimizer already has a sparse training of the same weights, and both would "
                "act: call detach() on the first one before you attach another"
            )

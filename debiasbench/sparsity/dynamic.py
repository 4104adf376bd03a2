"""Dynamic sparse training: fixed budgets per layer, a topology that follows the training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from debiasbench.sparsity.distributions import Distribution, allocate
from debiasbench.sparsity.params import maskable
from debiasbench.sparsity.topology import drop_and_grow, keyed_generator, random_mask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer


@dataclass
class DynamicSparsity:
    """Train at constant density; now and then drop small weights and grow others.

    RigL (Evci et al., ICML 2020) with `grow="gradient"`, SET (Mocanu et al., 2018) with
    `grow="random"`. An update comes after the optimizer step, every `update_every` steps until
    `stop` of the training is over, and exchanges ceil(f * active) weights of each layer, where
    f falls along a cosine from `drop_fraction` to `final_drop_fraction` at `stop`.

    `density`: fraction of convolution and linear weights kept, in (0, 1].
    `update_every`: steps; None is a twentieth of the training.
    `optimizer_state`: "mask" keeps gradients and optimizer state of inactive weights at 0;
    "dense" lets both run on, as the released REST code does, so grown weights start moving with
    a momentum that they gathered while inactive.
    """

    density: float
    distribution: Distribution = "erk"
    grow: Literal["gradient", "random"] = "gradient"
    drop_fraction: float = 0.5
    final_drop_fraction: float = 0.005
    update_every: int | None = None
    stop: float = 0.75
    optimizer_state: Literal["mask", "dense"] = "mask"

    masks: dict[str, Tensor] = field(default_factory=dict, init=False)
    updates: int = field(default=0, init=False)

    def on_start(self, module: nn.Module, optimizer: Optimizer, *, steps: int, seed: int) -> None:
        """Draw the masks, empty what is off them, and plan the updates."""
        self._params, self._optimizer, self._seed = maskable(module), optimizer, seed
        if not self._params:
            raise ValueError(
                f"{type(module).__name__} has no convolution or linear layer to make sparse"
            )
        self.masks, self.updates = {}, 0
        self._steps, self._every = steps, self.update_every or max(1, steps // 20)
        self._dense_gradient_steps = 0
        self._grow_scores: dict[str, Tensor] = {}
        shapes = {name: p.shape for name, p in self._params.items()}
        for name, nnz in allocate(shapes, self.density, self.distribution).items():
            mask = random_mask(shapes[name], nnz, keyed_generator(seed, "init", name))
            self.masks[name] = mask.to(self._params[name].device)
        self._apply()

    def before_step(self, step: int) -> None:
        """Take the growth scores if an update follows, then empty inactive gradients."""
        gradients = {n: p.grad for n, p in self._params.items() if p.grad is not None}
        update = self._is_update(step) and self.grow == "gradient"
        if update:
            self._grow_scores = {name: g.abs() for name, g in gradients.items()}
        if update or self.optimizer_state == "dense":
            self._dense_gradient_steps += 1
        if self.optimizer_state == "mask":
            torch._foreach_mul_(list(gradients.values()), [self.masks[n] for n in gradients])

    def after_step(self, step: int) -> None:
        """Keep inactive weights at 0; update the topology when it is time."""
        if self._is_update(step):
            self._update(step)
        elif self.optimizer_state == "dense":
            self._apply()

    def on_epoch_end(self, epoch: int) -> None:
        """Do nothing."""

    @torch.no_grad()
    def _update(self, step: int) -> None:
        for name, p in self._params.items():
            mask = self.masks[name]
            active = int(mask.sum())
            if active == mask.numel():
                continue  # a dense layer has nothing to grow
            if self.grow == "gradient":
                # a layer without gradient keeps its inactive weights as they come
                grow = self._grow_scores.get(name, torch.zeros_like(p))
            else:
                generator = keyed_generator(self._seed, step, name)
                grow = torch.rand(p.shape, generator=generator).to(p.device)
            k = min(math.ceil(self.drop_fraction_at(step) * active), active - 1)
            self.masks[name], new = drop_and_grow(mask, p.abs(), grow, k)
            p.masked_fill_(new, 0.0)
            if self.optimizer_state == "mask":
                self._forget(p, self.masks[name] & ~new)
        self._grow_scores = {}
        self._apply()
        self.updates += 1

    def _forget(self, p: nn.Parameter, keep: Tensor) -> None:
        """Zero gradient and optimizer state (momentum, Adam moments) of what is not in `keep`."""
        for value in (p.grad, *self._optimizer.state.get(p, {}).values()):
            if isinstance(value, Tensor) and value.shape == p.shape:
                value.mul_(keep)

    @torch.no_grad()
    def _apply(self) -> None:
        params = [p.data for p in self._params.values()]
        torch._foreach_mul_(params, [self.masks[name] for name in self._params])

    def _is_update(self, step: int) -> bool:
        return (step + 1) % self._every == 0 and step + 1 < self.stop * self._steps

    def drop_fraction_at(self, step: int) -> float:
        """Return f: the fraction of active weights that an update after `step` exchanges."""
        progress = min(1.0, (step + 1) / (self.stop * self._steps))
        span = self.drop_fraction - self.final_drop_fraction
        return self.final_drop_fraction + span * (1 + math.cos(math.pi * progress)) / 2

    def densities(self) -> dict[str, float]:
        """Fraction of active weights by parameter name."""
        return {name: int(m.sum()) / m.numel() for name, m in self.masks.items()}

    def saved_flops(self, forward: Mapping[str, float]) -> float:
        """Training FLOPs a sample saved against dense, averaged over the steps.

        Forward, input gradient and weight gradient each cost a layer's density, except that the
        weight gradient is dense at every step whose dense gradient is used
        (Evci et al., ICML 2020, appendix H).
        """
        saved = sum((1 - d) * forward.get(n, 0.0) for n, d in self.densities().items())
        return saved * (3 - self._dense_gradient_steps / self._steps)

    def state_dict(self) -> dict[str, object]:
        """Return masks and counters."""
        return {
            "masks": {name: mask.clone() for name, mask in self.masks.items()},
            "updates": self.updates,
            "dense_gradient_steps": self._dense_gradient_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up masks and counters again; `on_start` must have run for the same module.

        Raises `ValueError` if the masks are for other parameters.
        """
        shapes = {name: mask.shape for name, mask in state["masks"].items()}
        if shapes != {name: p.shape for name, p in self._params.items()}:
            raise ValueError("these masks belong to a network with other layers")
        for name, mask in state["masks"].items():
            self.masks[name].copy_(mask)
        self.updates = state["updates"]
        self._dense_gradient_steps = state["dense_gradient_steps"]
        self._apply()

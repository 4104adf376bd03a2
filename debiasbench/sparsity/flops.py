"""Floating-point operations (FLOPs) of a forward pass by layer, and of a sparse training.

One multiply-add counts as two FLOPs, as in RigL (Evci et al., ICML 2020, appendix H).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from debiasbench.sparsity.params import MASKABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass
class Flops:
    """Dense FLOPs of the forward passes that ran inside `count_flops`, over the whole batch.

    `by_parameter`: the part of `total` spent on multiplications with the parameter, by its name in
    the module. `input_gradients`: the same for parameters of layers whose input needs a gradient in
    the backward pass, else 0: the first layer needs none.
    """

    total: float = 0.0
    by_parameter: dict[str, float] = field(default_factory=dict)
    input_gradients: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingFlops:
    """FLOPs of a training step, averaged over the steps taken, for the batch that was counted."""

    forward: float
    input_gradient: float
    weight_gradient: float

    @property
    def total(self) -> float:
        """Sum of the three parts."""
        return self.forward + self.input_gradient + self.weight_gradient


@dataclass
class Ledger:
    """Counts of the weights used in each step, in forward and backward passes and in gradients.

    `sizes`: number of weights by parameter name. `active_steps`: active weights, summed over steps.
    `gradient_steps`: weights whose gradient was computed, summed over steps; these are all weights
    of a layer in steps that use the dense gradient.
    """

    sizes: dict[str, int]
    active_steps: dict[str, int] = field(default_factory=dict)
    gradient_steps: dict[str, int] = field(default_factory=dict)
    steps: int = 0

    def charge(
        self, active: Mapping[str, int], until: int, *, always_dense: bool, dense_last: bool
    ) -> None:
        """Count the steps from `steps` to `until`, each with `active` weights by layer.

        `always_dense`: all of these steps used dense gradients. `dense_last`: the last one did.
        """
        steps = until - self.steps
        for name, size in self.sizes.items():
            n = active[name]
            gradients = size * steps if always_dense else n * steps + (size - n) * dense_last
            self.active_steps[name] = self.active_steps.get(name, 0) + n * steps
            self.gradient_steps[name] = self.gradient_steps.get(name, 0) + gradients
        self.steps = until

    def training(self, flops: Flops) -> TrainingFlops:
        """Return the average FLOPs of a step; `flops` counted one dense forward pass."""
        steps = max(1, self.steps)
        forward = backward = gradient = flops.total
        backward -= sum(flops.by_parameter.values()) - sum(flops.input_gradients.values())
        for name, size in self.sizes.items():
            off = 1 - self.active_steps.get(name, 0) / (steps * size)
            forward -= off * flops.by_parameter.get(name, 0.0)
            backward -= off * flops.input_gradients.get(name, 0.0)
            missing = 1 - self.gradient_steps.get(name, 0) / (steps * size)
            gradient -= missing * flops.by_parameter.get(name, 0.0)
        return TrainingFlops(forward, backward, gradient)

    def saved(self, forward: Mapping[str, float]) -> float:
        """Return the FLOPs that a step saved on average, compared with a dense step.

        A dense step counts as three forward passes, the usual convention. `forward`: dense FLOPs of
        a forward pass by parameter name.
        """
        steps, saved = max(1, self.steps), 0.0
        for name, size in self.sizes.items():
            used = 2 * self.active_steps.get(name, 0) + self.gradient_steps.get(name, 0)
            saved += forward.get(name, 0.0) * (3 - used / (steps * size))
        return saved

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the counts."""
        self.active_steps = dict(state["active_steps"])
        self.gradient_steps = dict(state["gradient_steps"])
        self.steps = state["steps"]


@contextmanager
def count_flops(module: nn.Module, into: Flops | None = None) -> Iterator[Flops]:
    """Count the FLOPs of everything that runs inside the `with` block, and add them to `into`.

    `module`: its layers are also counted by parameter. Attention is counted only in training mode:
    PyTorch's fused inference path hides it.
    """
    flops = into or Flops()
    handles = [
        layer.register_forward_hook(_counter(flops, f"{name}." if name else ""), with_kwargs=True)
        for name, layer in module.named_modules()
        if isinstance(layer, (*MASKABLE, nn.MultiheadAttention))
    ]
    try:
        with FlopCounterMode(display=False) as counter:
            yield flops
        flops.total += float(counter.get_total_flops())
    finally:
        for handle in handles:
            handle.remove()


def _counter(into: Flops, prefix: str) -> Any:
    def hook(layer: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        for name, flops, x in _products(layer, args, kwargs, output):
            key = prefix + name
            into.by_parameter[key] = into.by_parameter.get(key, 0.0) + flops
            needed = flops if torch.is_grad_enabled() and x.requires_grad else 0.0
            into.input_gradients[key] = into.input_gradients.get(key, 0.0) + needed

    return hook


def _products(
    layer: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any
) -> Iterator[tuple[str, float, Tensor]]:
    """Yield the name, the FLOPs and the input of each weight that a layer multiplies with."""
    if isinstance(layer, nn.MultiheadAttention):
        query, key, value = (args[i] if i < len(args) else kwargs[n] for i, n in enumerate(_QKV))
        positions = [x.numel() / x.shape[-1] for x in (query, key, value)]
        if layer.in_proj_weight is not None:
            width = layer.in_proj_weight.numel() / 3
            yield "in_proj_weight", 2 * sum(positions) * width, query
        else:
            for n, p, x in zip("qkv", positions, (query, key, value), strict=True):
                yield f"{n}_proj_weight", 2 * p * getattr(layer, f"{n}_proj_weight").numel(), x
        out: Any = layer.out_proj.weight
        yield "out_proj.weight", 2 * positions[0] * out.numel(), output[0]
        return
    weight: Any = layer.weight
    # a transposed convolution applies its weight at every position of its input
    side = args[0] if getattr(layer, "transposed", False) else output
    width = side.shape[-1] if isinstance(layer, nn.Linear) else side.shape[1]
    yield "weight", 2 * side.numel() / width * weight.numel(), args[0] if args else kwargs["input"]


_QKV = ("query", "key", "value")

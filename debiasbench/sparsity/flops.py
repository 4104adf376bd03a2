"""Floating-point operations (FLOPs) of a forward pass by layer, and of a sparse training.

One multiply-add counts as two FLOPs, as in RigL (Evci et al., ICML 2020, appendix H).
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from debiasbench.sparsity.names import joined, named_modules
from debiasbench.sparsity.params import MASKABLE, maskable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass
class Flops:
    """Dense FLOPs of the forward passes that ran inside `count_flops`, over the whole batch.

    `by_parameter`: the part of `total` spent on multiplications with the parameter, by its name in
    the module; a parameter that layers share has the name that `maskable` gives it.
    `input_gradients`: the same for parameters of layers whose input needs a gradient in the
    backward pass, else 0: the first layer needs none. `frozen`: the same for parameters that need
    no gradient themselves, else 0.
    """

    total: float = 0.0
    by_parameter: dict[str, float] = field(default_factory=dict)
    input_gradients: dict[str, float] = field(default_factory=dict)
    frozen: dict[str, float] = field(default_factory=dict)


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
        gradient -= sum(flops.frozen.values())
        for name, size in self.sizes.items():
            off = 1 - self.active_steps.get(name, 0) / (steps * size)
            forward -= off * flops.by_parameter.get(name, 0.0)
            backward -= off * flops.input_gradients.get(name, 0.0)
            missing = 1 - self.gradient_steps.get(name, 0) / (steps * size)
            # `frozen` has already been subtracted
            cost = flops.by_parameter.get(name, 0.0) - flops.frozen.get(name, 0.0)
            gradient -= missing * cost
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

    `module`: its layers are also counted by parameter. `nn.MultiheadAttention` is counted only in
    training mode: PyTorch's fused inference path hides it. Attention by
    `scaled_dot_product_attention` is counted on every device.
    """
    flops = into or Flops()
    names = {id(weight): name for name, weight in maskable(module).items()}
    handles = [
        layer.register_forward_hook(_counter(flops, name, names), with_kwargs=True)
        for name, layer in named_modules(module)
        if isinstance(layer, (*MASKABLE, nn.MultiheadAttention))
    ]
    try:
        with FlopCounterMode(display=False, custom_mapping=_MORE) as counter:
            yield flops
        flops.total += float(counter.get_total_flops())
    finally:
        for handle in handles:
            handle.remove()


def _counter(into: Flops, prefix: str, names: Mapping[int, str]) -> Any:
    def hook(layer: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        for name, weight, flops, x in _products(layer, args, kwargs, output):
            key = names.get(id(weight), joined(prefix, name))
            recorded = torch.is_grad_enabled()
            for counts, counted in (
                (into.by_parameter, True),
                (into.input_gradients, recorded and x.requires_grad),
                (into.frozen, not weight.requires_grad),
            ):
                counts[key] = counts.get(key, 0.0) + (flops if counted else 0.0)

    return hook


def _products(
    layer: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any
) -> Iterator[tuple[str, Tensor, float, Tensor]]:
    """Yield name, weight, FLOPs and input of each weight that a layer multiplies with."""
    of: Any = layer
    if isinstance(layer, nn.MultiheadAttention):
        query, key, value = (args[i] if i < len(args) else kwargs[n] for i, n in enumerate(_QKV))
        positions = [x.numel() / x.shape[-1] for x in (query, key, value)]
        if layer.in_proj_weight is not None:
            weight: Tensor = layer.in_proj_weight
            yield "in_proj_weight", weight, 2 * sum(positions) * weight.numel() / 3, query
        else:
            for n, p, x in zip("qkv", positions, (query, key, value), strict=True):
                weight = getattr(layer, f"{n}_proj_weight")
                yield f"{n}_proj_weight", weight, 2 * p * weight.numel(), x
        weight = of.out_proj.weight
        yield "out_proj.weight", weight, 2 * positions[0] * weight.numel(), output[0]
        return
    x = args[0] if args else kwargs["input"]
    if isinstance(layer, nn.Linear):
        used = output.numel() / of.out_features
    elif of.transposed:  # applies its weight at every position of its input
        used = x.numel() / of.in_channels
    else:
        used = output.numel() / of.out_channels
    yield "weight", of.weight, 2 * used * of.weight.numel(), x


_QKV = ("query", "key", "value")


def _attention(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    """Return the FLOPs of the two products of attention, from shapes (B, H, L, D)."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


# PyTorch counts the fused attention of GPUs, and not that of CPUs
_MORE = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}

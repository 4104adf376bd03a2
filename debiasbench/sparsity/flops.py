"""Floating-point operations of a forward pass, in all and layer by layer.

One multiply-add counts as two, as in RigL (Evci et al., ICML 2020, appendix H).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from debiasbench.sparsity.params import MASKABLE

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Flops:
    """Dense FLOPs of whatever ran inside `count_flops`, over the whole batch.

    `by_parameter`: the part of `total` that the convolution or linear layer owning the
    parameter (by its name in the module) spent on multiplying with it.
    """

    total: float = 0.0
    by_parameter: dict[str, float] = field(default_factory=dict)


@contextmanager
def count_flops(module: nn.Module, into: Flops | None = None) -> Iterator[Flops]:
    """Count what runs inside the `with`, into `into`; `module` names the layers to list apart."""
    flops = into or Flops()
    handles = [
        layer.register_forward_hook(
            _counter(flops.by_parameter, f"{name}.weight" if name else "weight")
        )
        for name, layer in module.named_modules()
        if isinstance(layer, MASKABLE)
    ]
    try:
        with FlopCounterMode(display=False) as counter:
            yield flops
        flops.total += float(counter.get_total_flops())
    finally:
        for handle in handles:
            handle.remove()


def _counter(into: dict[str, float], name: str) -> Any:
    def hook(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        width = output.shape[-1] if isinstance(layer, nn.Linear) else output.shape[1]
        positions = output.numel() / width  # batch times every place the weight is applied at
        weight: Any = layer.weight
        into[name] = into.get(name, 0.0) + 2 * positions * weight.numel()

    return hook

"""Which active weights lie on a path from the input of a masked network to its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from debiasbench.sparsity.copies import copied, to_float64
from debiasbench.sparsity.params import layouts, maskable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True)
class Connectivity:
    """Counts of weights and outputs on a path from an input to an output.

    `kept`: active weights. `useful`: active weights on such a path. `outputs`: output units that a
    path reaches, out of `of_outputs`.
    """

    kept: int
    useful: int
    outputs: int
    of_outputs: int


def connectivity(model: nn.Module, masks: Mapping[str, Tensor], example: Tensor) -> Connectivity:
    """Count the active weights and the outputs that lie on a path through a masked network.

    A copy of `model`, in which active weights are positive, biases are 0 and normalisation does
    nothing, gets an input of ones in the shape of one sample of `example` (B, *input). Its output
    and gradients are positive exactly where a path exists (the idea of SynFlow; Tanaka et al.,
    NeurIPS 2020). This holds if the layers between the weights are monotone, as ReLU is.
    """
    probe = copied(model).train().eval()
    to_float64(probe)
    _make_positive(probe, masks)
    weights = {n: p for n, p in maskable(probe).items() if n in masks}
    output = probe(torch.ones_like(example[:1], dtype=torch.double, device="cpu")).flatten()
    gradients = torch.autograd.grad(output.sum(), list(weights.values()), allow_unused=True)
    useful = sum(
        int(((g != 0) & masks[n].cpu()).sum())
        for n, g in zip(weights, gradients, strict=True)
        if g is not None
    )
    return Connectivity(
        kept=sum(int(m.sum()) for m in masks.values()),
        useful=useful,
        outputs=int((output != 0).sum()),
        of_outputs=len(output),
    )


@torch.no_grad()
def _make_positive(probe: nn.Module, masks: Mapping[str, Tensor]) -> None:
    weights, layout = maskable(probe), layouts(probe)
    for name, p in probe.named_parameters():
        p.requires_grad_(name in weights)
        p.zero_()
        if name in weights:
            mask = masks.get(name, torch.ones_like(p))
            fan_in = layout[name].shape(p.shape)[1:].numel()
            p.copy_(mask / fan_in)  # keeps products of many layers finite
    for layer in probe.modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.running_mean is not None:
            layer.reset_running_stats()
        if (
            hasattr(layer, "weight")
            and isinstance(layer.weight, nn.Parameter)
            and layer.weight.ndim == 1
        ):
            layer.weight.fill_(1.0)

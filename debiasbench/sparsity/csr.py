"""Convert the layers of a masked network to compressed sparse rows (CSR) where that is faster.

For inference only: masks are fixed, and weights get no gradients. Whether CSR is faster depends on
density, layer, batch size, machine and number of threads, so it is measured.

Speed-up over the dense layer by density, on one thread of a busy AMD EPYC (torch 2.15, float32);
the smaller number of two runs:

                                              0.1    0.05   0.01   0.0005
    linear, 2048 to 2048, batch size 1        1.4    2.2    3.8    4.9
    linear, 2048 to 2048, batch size 32       2.2    7.5    16     22
    3x3, 64 to 64 channels of 56x56, 16       0.3    0.3    0.7    1.7
    3x3, 512 to 512 channels of 7x7, 16       0.7    1.7    3.7    7.7
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

from debiasbench.sparsity.candidates import (
    inputs_of,
    is_plain,
    masks_by_weight,
    milliseconds,
    replaced,
)
from debiasbench.sparsity.copies import copied
from debiasbench.sparsity.csr_layers import CsrConv2d, CsrLinear, index_type
from debiasbench.sparsity.errors import SparsityError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Choice:
    """The decision for one layer, with the times that it is based on.

    Times are medians, for all inputs that one pass of the example gives to the layer.
    """

    name: str  # of its weight
    density: float  # fraction of weights kept, in [0, 1]
    dense_ms: float
    csr_ms: float
    chosen: bool  # whether the layer is in CSR now


@dataclass(frozen=True)
class CsrReport:
    """A network for inference, and the decision for each candidate layer."""

    model: nn.Module
    layers: tuple[Choice, ...]


def is_faster(dense_ms: float, csr_ms: float) -> bool:
    """Choose CSR only if it took less time."""
    return csr_ms < dense_ms


@torch.no_grad()
def to_csr(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    example: Tensor | Mapping[str, Tensor],
    *,
    repeats: int = 5,
    choose: Callable[[float, float], bool] = is_faster,
) -> CsrReport:
    """Return a copy of `model`, in eval mode, whose layers are in CSR where `choose` says so.

    Both networks compute the same up to rounding. Candidates are `nn.Linear` and ungrouped,
    zero-padded `nn.Conv2d` layers that a pass of `example` calls. A candidate has exactly this
    type, has no hooks, and has a dtype and device for which PyTorch has CSR products (on a CPU not
    half precision).

    `model`: not changed. `masks`: bool, by parameter name; a layer without a mask is dense, and
    also a candidate. `example`: (B, *input), of the batch size used for inference. `repeats`: how
    often each layer and its CSR version are timed, alternately. `choose`: called with the times of
    the dense layer and of its CSR version, in milliseconds.

    In the state dict of the result, a `weight` in CSR is replaced by `crow`, `col`, `values` and,
    for some convolutions, `read`. It can be loaded by networks converted with the same number of
    weights in each layer and the same choices.

    Raises `SparsityError` for masks that do not fit `model`, for a layer whose weight a hook
    computes, and for `repeats` below 1.
    """
    if repeats < 1:
        raise SparsityError(f"repeats must be at least 1, not {repeats}")
    converted = copied(model).eval().requires_grad_(False)
    mask_of = masks_by_weight(converted, masks)
    candidates = {
        f"{prefix}.weight".removeprefix("."): layer
        for prefix, layer in converted.named_modules()
        if _is_candidate(layer)
    }
    choices: list[Choice] = []
    replacements: dict[nn.Module, nn.Module] = {}
    for name, inputs in inputs_of(converted, candidates, example).items():
        layer = candidates[name]
        mask = mask_of.get(layer.weight)
        if mask is None:
            mask = torch.ones_like(layer.weight, dtype=torch.bool)
        sparse = CsrLinear(layer, mask) if isinstance(layer, nn.Linear) else CsrConv2d(layer, mask)
        dense_ms, csr_ms = milliseconds(layer, sparse, inputs, repeats)
        choice = Choice(
            name=name,
            density=int(mask.sum()) / mask.numel(),
            dense_ms=dense_ms,
            csr_ms=csr_ms,
            chosen=choose(dense_ms, csr_ms),
        )
        choices.append(choice)
        if choice.chosen:
            replacements[layer] = sparse
    return CsrReport(replaced(converted, replacements), tuple(choices))


def _is_candidate(layer: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    if not is_plain(layer, nn.Linear, nn.Conv2d):
        return False
    if isinstance(layer, nn.Conv2d) and (layer.groups > 1 or layer.padding_mode != "zeros"):
        return False
    weight = layer.get_parameter("weight")
    return weight.numel() > 0 and index_type(weight) is not None

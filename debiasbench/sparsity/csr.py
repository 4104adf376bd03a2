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

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

from debiasbench.sparsity.copies import copied
from debiasbench.sparsity.csr_layers import CsrConv2d, CsrLinear, index_type
from debiasbench.sparsity.errors import SparsityError, unknown
from debiasbench.sparsity.guards import check_mask
from debiasbench.sparsity.params import maskable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


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
    example: Tensor,
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
    mask_of = _masks_by_weight(converted, masks)
    candidates = {
        f"{prefix}.weight".removeprefix("."): layer
        for prefix, layer in converted.named_modules()
        if _is_candidate(layer)
    }
    choices: list[Choice] = []
    replacements: dict[nn.Module, nn.Module] = {}
    for name, inputs in _inputs(converted, candidates, example).items():
        layer = candidates[name]
        mask = mask_of.get(layer.weight)
        if mask is None:
            mask = torch.ones_like(layer.weight, dtype=torch.bool)
        sparse = CsrLinear(layer, mask) if isinstance(layer, nn.Linear) else CsrConv2d(layer, mask)
        dense_ms, csr_ms = _milliseconds(layer, sparse, inputs, repeats)
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
    return CsrReport(_replace(converted, replacements), tuple(choices))


def _masks_by_weight(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[Tensor, Tensor]:
    weights = maskable(model)
    by_weight: dict[Tensor, Tensor] = {}
    for name, mask in masks.items():
        if name not in weights:
            raise unknown("weight", name, weights)
        check_mask(name, weights[name], mask)
        by_weight[weights[name]] = mask.to(weights[name].device)
    return by_weight


def _is_candidate(layer: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    # a layer of a derived class (for example parametrised), or with hooks, may do more
    if type(layer) not in {nn.Linear, nn.Conv2d} or "forward" in vars(layer):
        return False
    if layer._forward_pre_hooks or layer._forward_hooks:
        return False
    if isinstance(layer, nn.Conv2d) and (layer.groups > 1 or layer.padding_mode != "zeros"):
        return False
    weight = layer.get_parameter("weight")
    return weight.numel() > 0 and index_type(weight) is not None


def _inputs(
    model: nn.Module, layers: Mapping[str, nn.Module], example: Tensor
) -> dict[str, list[Tensor]]:
    """Return the inputs of each layer in one pass, in the order of `layers`.

    Layers that the pass does not call are left out.
    """
    inputs: dict[str, list[Tensor]] = {name: [] for name in layers}

    def record(name: str, layer: nn.Module) -> None:
        forward = layer.forward

        def recording(*args: Tensor, **kwargs: Tensor) -> Tensor:
            inputs[name] += [*args, *kwargs.values()]
            output: Tensor = forward(*args, **kwargs)
            return output

        vars(layer)["forward"] = recording

    # not with hooks: they make nn.TransformerEncoderLayer call layers whose weights it would read
    for name, layer in layers.items():
        record(name, layer)
    model(example)
    for layer in layers.values():
        del vars(layer)["forward"]
    return {name: recorded for name, recorded in inputs.items() if recorded}


def _milliseconds(
    dense: nn.Module, sparse: nn.Module, inputs: Sequence[Tensor], repeats: int
) -> tuple[float, float]:
    """Return the median time of each layer for all inputs, timed alternately."""
    times: dict[nn.Module, list[float]] = {dense: [], sparse: []}
    device = inputs[0].device
    for _ in range(1 + repeats):
        for layer, measured in times.items():
            start = time.perf_counter()
            for x in inputs:
                layer(x)
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            measured.append(1000 * (time.perf_counter() - start))
    # the first of each was to warm up
    return median(times[dense][1:]), median(times[sparse][1:])


def _replace(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # a shared layer under all its names
            if child is not None and child in replacements:
                setattr(parent, name, replacements[child])
    return replacements.get(model, model)

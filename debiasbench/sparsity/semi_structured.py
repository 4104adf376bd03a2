"""Convert linear layers with 2:4 weights to PyTorch's semi-structured kernels where that is faster.

For inference only, in half precision, on an NVIDIA GPU of compute capability 8.0 or newer. PyTorch
has these kernels for linear layers only: convolutions stay dense. Whether they are faster depends
on layer, batch size and GPU, so it is measured.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree

from debiasbench.sparsity.candidates import (
    inputs_of,
    is_plain,
    masks_by_weight,
    milliseconds,
    replaced,
)
from debiasbench.sparsity.copies import copied
from debiasbench.sparsity.errors import SparsityError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

HALF = (torch.float16, torch.bfloat16)
ROWS, COLUMNS = 32, 64  # sizes are multiples of these; cuSPARSELt would also take 16
ROUNDING = 8  # difference of outputs that is rounding, in units of the type's precision


@dataclass(frozen=True)
class SemiStructuredChoice:
    """The decision for one layer, with the times that it is based on.

    Times are medians, for all inputs that one pass of the example gives to the layer.
    """

    name: str  # of its weight
    density: float  # fraction of weights kept, in [0, 1]
    dense_ms: float  # in the same half precision
    sparse_ms: float
    difference: float  # largest difference of an output, relative to the largest output
    chosen: bool  # whether the layer has a semi-structured weight now


@dataclass(frozen=True)
class SemiStructuredReport:
    """A network in half precision for inference, and the decision for each linear layer."""

    model: nn.Module
    layers: tuple[SemiStructuredChoice, ...]
    unsuited: Mapping[str, str]  # weights of the other linear layers, and why they stay dense


def is_faster(dense_ms: float, sparse_ms: float) -> bool:
    """Choose semi-structured weights only if they took less time."""
    return sparse_ms < dense_ms


def semi_structured(weight: Tensor) -> Tensor:
    """Return a weight (O, I) as 2:4 kernels read it; `RuntimeError` if there are none."""
    with warnings.catch_warnings():
        # outputs are compared, so it is no surprise that this is a prototype in PyTorch
        warnings.filterwarnings("ignore", ".*SparseSemiStructuredTensor.*", UserWarning)
        if torch.backends.cusparselt.is_available():
            return torch.sparse.SparseSemiStructuredTensorCUSPARSELT.from_dense(weight)
        return torch.sparse.SparseSemiStructuredTensorCUTLASS.from_dense(weight)


@torch.no_grad()
def to_semi_structured(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    example: Tensor | Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float16,
    repeats: int = 5,
    choose: Callable[[float, float], bool] = is_faster,
    convert: Callable[[Tensor], Tensor] = semi_structured,
    timer: Callable[
        [nn.Module, nn.Module, Sequence[Tensor], int], tuple[float, float]
    ] = milliseconds,
) -> SemiStructuredReport:
    """Return a copy of `model` in half precision whose 2:4 layers use 2:4 kernels if chosen.

    Candidates are `nn.Linear` layers that a pass of `example` calls, with at most two weights in
    every four consecutive inputs, and with sizes that the kernels support. A candidate has exactly
    this type and no hooks.

    `model`: not changed; the copy is on its device. `masks`: bool, by parameter name; a layer
    without a mask is judged by its weights that are not 0. `example`: (B, *input), of the batch
    size used for inference. `dtype`: float16, or bfloat16, which rounds more and does not overflow.
    `repeats`: how often each layer and its sparse version are timed, alternately. `choose`: called
    with the times of the dense and of the sparse layer, in milliseconds. `convert`, `timer`: other
    kernels and another clock.

    Raises `SparsityError` if the device has no such kernels, if no layer is a candidate, if masks
    do not fit, if a layer would compute something else, and for other settings than these.
    """
    if repeats < 1:
        raise SparsityError(f"repeats must be at least 1, not {repeats}")
    if dtype not in HALF:
        raise SparsityError(f"dtype is {dtype}, but must be torch.float16 or torch.bfloat16")
    half = copied(model).eval().requires_grad_(False)
    mask_of = masks_by_weight(half, masks)
    half = half.to(dtype)
    x = _pytree.tree_map_only(
        Tensor, lambda v: v.to(dtype) if v.is_floating_point() else v, example
    )
    _check_kernels(_pytree.tree_leaves(x)[0].device, dtype, convert)
    candidates: dict[str, nn.Linear] = {}
    unsuited: dict[str, str] = {}
    for prefix, layer in half.named_modules():
        if isinstance(layer, nn.Linear):
            name = f"{prefix}.weight".removeprefix(".")
            if reason := _unsuited(layer, mask_of):
                unsuited[name] = reason
            else:
                candidates[name] = layer
    if not candidates:
        reasons = "".join(f"; {name}: {why}" for name, why in list(unsuited.items())[:3])
        raise SparsityError(
            f"No linear layer can use 2:4 kernels{reasons}. Train with pattern=2:4 and density=0.5 "
            "(convolutions have no such kernels)"
        )
    choices: list[SemiStructuredChoice] = []
    replacements: dict[nn.Module, nn.Module] = {}
    for name, inputs in inputs_of(half, candidates, x).items():
        layer = candidates[name]
        sparse = copy.deepcopy(layer)
        sparse.weight = nn.Parameter(convert(layer.weight.detach().contiguous()), False)
        difference = max(_difference(layer(i), sparse(i)) for i in inputs)
        if not difference <= ROUNDING * torch.finfo(dtype).eps:
            raise SparsityError(
                f"{name} would compute something else with 2:4 kernels: outputs differ by "
                f"{difference:.2g}, relative to the largest. Use the dense network"
            )
        dense_ms, sparse_ms = timer(layer, sparse, inputs, repeats)
        chosen = choose(dense_ms, sparse_ms)
        density = int(_mask(layer, mask_of).count_nonzero()) / layer.weight.numel()
        choices.append(SemiStructuredChoice(name, density, dense_ms, sparse_ms, difference, chosen))
        if chosen:
            replacements[layer] = sparse
    return SemiStructuredReport(replaced(half, replacements), tuple(choices), unsuited)


def _check_kernels(
    device: torch.device, dtype: torch.dtype, convert: Callable[[Tensor], Tensor]
) -> None:
    """Raise `SparsityError` unless a small product with a 2:4 weight works on this device."""
    weight = torch.zeros(2 * COLUMNS, COLUMNS, dtype=dtype, device=device)
    try:
        F.linear(weight[:COLUMNS], convert(weight))
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0].rstrip(".!")
        raise SparsityError(
            "2:4 kernels need an NVIDIA GPU of compute capability 8.0 or newer; this network is on "
            f"{device} (PyTorch: {reason}). Move it to such a GPU"
        ) from error


def _unsuited(layer: nn.Linear, mask_of: Mapping[Tensor, Tensor]) -> str:
    """Return why a layer cannot use 2:4 kernels; empty if it can."""
    rows, columns = layer.weight.shape
    if not is_plain(layer, nn.Linear):
        return f"{type(layer).__name__} with hooks or of a derived class"
    if not rows or rows % ROWS or not columns or columns % COLUMNS:
        return (
            f"{rows} outputs and {columns} inputs are not multiples of {ROWS} and {COLUMNS}, as "
            "the kernels need"
        )
    groups = _mask(layer, mask_of).view(rows, -1, 4).sum(2)
    if int(groups.max()) > 2:
        many = int((groups > 2).count_nonzero())
        return f"{many} of {groups.numel()} groups of four inputs have more than two weights"
    return ""


def _mask(layer: nn.Linear, mask_of: Mapping[Tensor, Tensor]) -> Tensor:
    mask = mask_of.get(layer.weight)
    return layer.weight != 0 if mask is None else mask


def _difference(dense: Tensor, sparse: Tensor) -> float:
    """Return the largest difference of an output, relative to the largest output."""
    largest = dense.float().abs().amax().clamp(min=1e-12) if dense.numel() else 1.0
    off = (dense.float() - sparse.float()).abs()
    return float(off.amax() / largest) if off.numel() else 0.0

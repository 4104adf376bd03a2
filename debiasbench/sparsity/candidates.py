"""Layers that another kernel may compute: their masks, inputs and times, and replacing them."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from debiasbench.sparsity.errors import unknown
from debiasbench.sparsity.guards import check_mask
from debiasbench.sparsity.params import maskable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def masks_by_weight(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[Tensor, Tensor]:
    """Return masks by weight, on its device; raise `SparsityError` if they do not fit `model`."""
    weights = maskable(model)
    by_weight: dict[Tensor, Tensor] = {}
    for name, mask in masks.items():
        if name not in weights:
            raise unknown("weight", name, weights)
        check_mask(name, weights[name], mask)
        by_weight[weights[name]] = mask.to(weights[name].device)
    return by_weight


def is_plain(layer: nn.Module, *types: type[nn.Module]) -> bool:
    """Return whether a layer has exactly one of `types`, and does nothing besides."""
    # a layer of a derived class (for example parametrised), or with hooks, may do more
    if type(layer) not in types or "forward" in vars(layer):
        return False
    return not (layer._forward_pre_hooks or layer._forward_hooks)


def inputs_of(
    model: nn.Module, layers: Mapping[str, nn.Module], example: Tensor | Mapping[str, Tensor]
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


def milliseconds(
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


def replaced(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Replace layers of `model`, in place; return what it is then."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # a shared layer under all its names
            if child is not None and child in replacements:
                setattr(parent, name, replacements[child])
    return replacements.get(model, model)

"""Cut the layers of a network down to the channels that are kept, and fold in lost constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from debiasbench.sparsity.compaction.liveness import Features, Layer, PerChannel, over_kernel
from debiasbench.sparsity.copies import unwrapped_modules

Kept = Callable[[Features], Tensor]  # (F,) bool


def shrink_layer(layer: Layer, kept: Kept) -> Tensor:
    """Cut a layer down to the kept channels, fold lost constants in; return its new mask."""
    x, module = layer.source, layer.module
    columns, rows = kept(x), kept(layer.target)
    # rows that must stay because of another tensor, but are not read in this one
    unread = ~layer.target.needed
    weight, mask, bias = layer.weight.clone(), layer.mask.clone(), layer.bias
    weight[unread], mask[unread] = 0.0, False
    value = x.value.where(x.real & ~columns, 0.0)  # (source F,)
    if layer.padded:
        read = mask.transpose(0, 1).flatten(1).any(1)
        for carrier in (columns & ~x.real).nonzero()[:, 0].tolist():
            lost = read & (value != 0) & (x.carrier == carrier)
            share = value[lost] / x.value[carrier]
            weight[:, carrier] = torch.tensordot(weight[:, lost], share, dims=([1], [0]))
            mask[:, carrier] = mask[:, lost].any(1)
    else:
        bias = bias + over_kernel(weight) @ value

    _assign(module, "weight", weight[rows][:, columns])
    if module.bias is not None or bias[rows].any():
        _assign(module, "bias", bias[rows])
    kind = "features" if isinstance(module, nn.Linear) else "channels"
    setattr(module, f"in_{kind}", int(columns.sum()))
    setattr(module, f"out_{kind}", int(rows.sum()))
    return mask[rows][:, columns]


def shrink_per_channel(part: PerChannel, kept: Kept) -> None:
    """Cut a BatchNorm or a depthwise convolution down to the kept channels."""
    channels = kept(part.target)
    for attribute, values in part.tensors.items():
        _assign(part.module, attribute, values[channels])
    depthwise = part.mask is not None
    for size in ("in_channels", "out_channels", "groups") if depthwise else ("num_features",):
        setattr(part.module, size, int(channels.sum()))


def restore_tensors(small: nn.Module, model: nn.Module) -> None:
    """Give every parameter and buffer its original type and device."""
    for module, original in zip(small.modules(), unwrapped_modules(model), strict=True):
        for name, p in module.named_parameters(recurse=False):
            like: Any = getattr(original, name)
            if like is None:  # a bias that constants were folded into
                like = original.weight
            p.data, p.grad = p.data.to(like), None
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(getattr(original, name))


def restore_modes(small: nn.Module, model: nn.Module) -> None:
    """Give every module the mode of its original."""
    small.train(model.training)
    for module, original in zip(small.modules(), unwrapped_modules(model), strict=True):
        if module.training != original.training:
            module.train(original.training)


def _assign(module: Any, attribute: str, values: Tensor) -> None:
    old = getattr(module, attribute)
    if attribute.startswith("running"):
        setattr(module, attribute, values)
    else:
        trained = (module.weight if old is None else old).requires_grad
        setattr(module, attribute, nn.Parameter(values, requires_grad=trained))

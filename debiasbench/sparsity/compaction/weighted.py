"""Rules for layers with weights: linear layers, convolutions and BatchNorm.

A rule returns the features of the tensor that a node computes, or None if it cannot tell. Masks
alone decide which features are alive: an active weight that happens to be 0 still counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from debiasbench.sparsity.compaction.liveness import Features, Layer, PerChannel, over_kernel
from debiasbench.sparsity.compaction.propagation import Propagation, batch_rank, is_padded

if TYPE_CHECKING:
    from torch import fx


def linear(network: Propagation, node: fx.Node) -> Features | None:
    """Multiply the features of the last dimension by a weight."""
    return _layer(network, node, dim=len(network.input_shape(node)) - 1, padded=False)


def convolution(network: Propagation, node: fx.Node) -> Features | None:
    """Convolve a batch of images: ungrouped or depthwise."""
    conv = network.module(node)
    if len(network.input_shape(node)) != batch_rank(type(conv)):
        return None
    if conv.groups == 1:
        return _layer(network, node, dim=1, padded=_pads_with_zeros(conv))
    depthwise = conv.groups == conv.in_channels == conv.out_channels
    return _depthwise(network, node) if depthwise else None


def norm(network: Propagation, node: fx.Node) -> Features | None:
    """Scale and shift by running statistics."""
    module, x = network.module(node), network.image(node)
    if x is None or network.is_shared(node) or module.running_var is None:
        return None
    carrier = {"weight": 0.0, "bias": 1.0, "running_mean": 0.0, "running_var": 1.0}
    tensors = {
        attribute: x.spread(getattr(module, attribute), fill)
        for attribute, fill in carrier.items()
        if getattr(module, attribute) is not None
    }
    scale = tensors.get("weight", 1.0) / (tensors["running_var"] + module.eps).sqrt()
    value = (x.value - tensors["running_mean"]) * scale + tensors.get("bias", 0.0)
    target = x.then(value, x.alive)
    network.per_channel.append(PerChannel(module, target, tensors))
    return target


def _layer(network: Propagation, node: fx.Node, *, dim: int, padded: bool) -> Features | None:
    module, name = network.module(node), f"{node.target}.weight"
    x = network.input(node)
    if not network.is_masked(node) or (x is not None and x.dim != dim):
        return None
    if x is None:
        x = network.all_alive(network.input_shape(node)[dim], dim)
    outputs = len(module.weight)
    weight, mask = (
        tensor.new_zeros(outputs + 1, len(x.real), *tensor.shape[2:])
        for tensor in (module.weight, network.masks[name])
    )
    weight[:-1, x.real], mask[:-1, x.real] = module.weight, network.masks[name]
    bias = weight.new_zeros(outputs + 1)
    if module.bias is not None:
        bias[:-1] = module.bias
    reads = mask.flatten(2).any(2) if mask.ndim > 2 else mask  # (target F, source F)
    alive = (reads & (x.alive | x.constant if padded else x.alive)).any(1)
    value = (bias + over_kernel(weight) @ x.value).masked_fill(alive, 0.0)
    # a layer with a bias, or with constants that will give it one, can set its carrier
    bias[-1] = value[-1] = float(module.bias is not None or bool(value.any()))
    target = Features(
        dim=dim,
        channels=network.channels.new(outputs + 1),
        real=torch.arange(outputs + 1) < outputs,
        carrier=torch.full((outputs + 1,), outputs),
        alive=alive,
        value=value,
        reads=[(x, lambda needed: reads[needed].any(0))],
    )
    network.layers.append(Layer(name, module, padded, x, target, weight, mask, bias))
    return target


def _depthwise(network: Propagation, node: fx.Node) -> Features | None:
    conv, name, x = network.module(node), f"{node.target}.weight", network.image(node)
    if x is None or not network.is_masked(node):
        return None
    tensors = {"weight": x.spread(conv.weight, 0.0)}
    if conv.bias is not None:
        tensors["bias"] = x.spread(conv.bias, 1.0)
    mask = x.spread(network.masks[name], False)
    reads = mask.flatten(1).any(1)
    alive = reads & (x.alive | x.constant if _pads_with_zeros(conv) else x.alive)
    value = x.value * tensors["weight"].flatten(1).sum(1) + tensors.get("bias", 0.0)
    target = x.then(value, alive, lambda needed: needed & reads)
    network.per_channel.append(PerChannel(conv, target, tensors, name, mask))
    return target


def _pads_with_zeros(conv: Any) -> bool:
    if conv.padding_mode != "zeros" or conv.padding == "valid":
        return False
    if conv.padding == "same":
        return any(k > 1 for k in conv.kernel_size)
    return is_padded(conv.padding)

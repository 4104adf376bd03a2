"""Which rule applies to which PyTorch operation, and the pass that applies them.

An operation without a rule keeps all channels of the tensors that it reads and computes. This
includes GroupNorm and LayerNorm, whose statistics mix channels; attention; convolutions with
groups that are not depthwise; and modules or weights that are used more than once.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from debiasbench.sparsity.compaction import weighted, weightless
from debiasbench.sparsity.compaction.liveness import Features
from debiasbench.sparsity.compaction.propagation import Propagation

Rule = Callable[[Propagation, fx.Node], Features | None]


def propagate(
    model: nn.Module,
    graph: fx.GraphModule,
    shapes: Mapping[fx.Node, torch.Size],
    masks: Mapping[str, Tensor],
) -> Propagation:
    """Apply the rules from the inputs to the outputs; arguments as in `Propagation`."""
    network = Propagation(model, graph, shapes, masks)
    for node in graph.graph.nodes:
        rule = RULES.get(network.operation(node)) if node in shapes else None
        features = rule(network, node) if rule else None
        if features is not None:
            network.features[node] = features
        elif not network.reads_other_sizes(node):
            network.pin_inputs(node)
    return network


_CONVOLUTIONS = {nn.Conv1d, nn.Conv2d, nn.Conv3d}
_NORMS = {nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm}
_AVERAGE_POOLS = {
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d,
}  # fmt: skip
_POOLS = {
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, F.max_pool1d, F.max_pool2d, F.max_pool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d,
}  # fmt: skip
_UNCHANGED = {
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, "contiguous", "clone", "detach",
}  # fmt: skip
_FLATTENS = {nn.Flatten, torch.flatten, torch.reshape, "flatten", "reshape", "view"}
_ELEMENTWISE_NAMES = (
    "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "sigmoid", "tanh",
    "hardswish", "hardsigmoid", "hardtanh", "softplus", "softsign", "logsigmoid", "clamp",
    "abs", "neg", "add", "sub", "mul", "div", "truediv", "iadd", "isub", "imul",
)  # fmt: skip
_ELEMENTWISE_MODULES = {
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Softsign,
    nn.LogSigmoid,
}  # fmt: skip
_ELEMENTWISE_FUNCTIONS = {
    getattr(space, name)
    for space in (operator, torch, F)
    for name in _ELEMENTWISE_NAMES
    if hasattr(space, name)
}
_ELEMENTWISE_METHODS = {name + ending for name in _ELEMENTWISE_NAMES for ending in ("", "_")}
_ELEMENTWISE = _ELEMENTWISE_MODULES | _ELEMENTWISE_FUNCTIONS | _ELEMENTWISE_METHODS

# by type of module (exactly: subclasses may do something else), function, or name of a method
RULES: dict[object, Rule] = {
    nn.Linear: weighted.linear,
    **dict.fromkeys(_CONVOLUTIONS, weighted.convolution),
    **dict.fromkeys(_NORMS, weighted.norm),
    **dict.fromkeys(_ELEMENTWISE, weightless.elementwise),
    **dict.fromkeys(_UNCHANGED, weightless.unchanged),
    **dict.fromkeys(_POOLS, weightless.pool),
    **dict.fromkeys(_AVERAGE_POOLS, weightless.average_pool),
    **dict.fromkeys((torch.mean, torch.amax, "mean", "amax"), weightless.mean),
    **dict.fromkeys(_FLATTENS, weightless.flatten),
    **dict.fromkeys((torch.cat, torch.concat), weightless.concatenate),
}

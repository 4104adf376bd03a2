"""How channels go through a network: for each operation, what it makes of dead and alive features.

An operation without a rule here keeps all channels of the tensors that it reads and makes. So do
GroupNorm and LayerNorm, whose statistics mix channels; attention; convolutions with groups that
are not depthwise; and modules or weights with more than one use.

Activity is read off the masks alone: an active weight that happens to be 0 still counts.
"""

from __future__ import annotations

import operator
from collections import Counter
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from debiasbench.sparsity.liveness import Channels, Features, Layer, PerChannel, over_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Propagation:
    """One walk through a traced network, from its inputs to its outputs.

    `model`: in float64, on the CPU, in eval mode; `graph`: traced from it.
    `shapes`: of every tensor of one run, by the node of `graph` that makes it.
    `masks`: bool, of every convolution and linear weight, by its name; weights off them are 0.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: fx.GraphModule,
        shapes: Mapping[fx.Node, torch.Size],
        masks: Mapping[str, Tensor],
    ) -> None:
        self.features: dict[fx.Node, Features] = {}  # in the order of computation
        self.channels = Channels()
        self.layers: list[Layer] = []
        self.per_channel: list[PerChannel] = []
        self._modules: dict[str, Any] = dict(model.named_modules())
        self._shared = _shared_modules(model, graph)
        self._shapes, self._masks = shapes, masks
        for node in graph.graph.nodes:
            rule = RULES.get(self._operation(node)) if node in shapes else None
            features = rule(self, node) if rule else None
            if features is not None:
                self.features[node] = features
            elif not self._asks_for_another_size(node):
                for source in node.all_input_nodes:
                    if source in self.features:
                        self.channels.pin(self.features[source])

    def _operation(self, node: fx.Node) -> Any:
        """Return the key into `RULES`: a type of module, a function or the name of a method."""
        if node.op == "call_module":
            module = self._module(node)
            hooked = module._forward_hooks or module._forward_pre_hooks  # who knows what they do
            return None if hooked else type(module)
        return node.target if node.op in ("call_function", "call_method") else None

    def _module(self, node: fx.Node) -> Any:
        return self._modules[str(node.target)] if node.op == "call_module" else None

    def _input(self, node: fx.Node) -> Features | None:
        return self.features.get(node.all_input_nodes[0]) if node.all_input_nodes else None

    def _image(self, node: fx.Node) -> Features | None:
        """Return the input of a node if its features are known and lie along dimension 1."""
        x = self._input(node)
        return x if x is not None and x.dim == 1 else None

    def _input_shape(self, node: fx.Node) -> torch.Size:
        return self._shapes[node.all_input_nodes[0]]

    def _asks_for_another_size(self, node: fx.Node) -> bool:
        """Whether a node like `x.size(0)` or `x.shape[2:]` does without the number of channels."""
        x = self._input(node)
        if x is None or not (node.target == "size" or node.args[1:] == ("shape",)):
            return False
        places = node.args[1:]
        if places in ((), ("shape",)):  # all sizes, of which others take some
            if any(user.target is not operator.getitem for user in node.users):
                return False
            places = tuple(user.args[1] for user in node.users if user.users)
        others = [dim for dim in range(len(self._input_shape(node))) if dim != x.dim]
        return all(_takes_from(place, others, len(others) + 1) for place in places)

    # Every rule returns the features of the tensor that a node makes, or None if it cannot tell.

    def linear(self, node: fx.Node) -> Features | None:
        """Weight each feature of the last dimension."""
        return self._layer(node, dim=len(self._input_shape(node)) - 1, padded=False)

    def convolution(self, node: fx.Node) -> Features | None:
        """Weight each feature of a batch of images; alone, or with all others."""
        conv = self._module(node)
        if len(self._input_shape(node)) != _rank(type(conv)):
            return None
        if conv.groups == 1:
            return self._layer(node, dim=1, padded=_pads_with_zeros(conv))
        depthwise = conv.groups == conv.in_channels == conv.out_channels
        return self._depthwise(node) if depthwise else None

    def _layer(self, node: fx.Node, *, dim: int, padded: bool) -> Features | None:
        module, name = self._module(node), f"{node.target}.weight"
        x = self._input(node)
        if not self._is_own(node) or (x is not None and x.dim != dim):
            return None
        if x is None:
            x = self._all_alive(self._input_shape(node)[dim], dim)
        outputs = len(module.weight)
        weight, mask = (
            of.new_zeros(outputs + 1, len(x.real), *of.shape[2:])
            for of in (module.weight, self._masks[name])
        )
        weight[:-1, x.real], mask[:-1, x.real] = module.weight, self._masks[name]
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
            channels=self.channels.new(outputs + 1),
            real=torch.arange(outputs + 1) < outputs,
            carrier=torch.full((outputs + 1,), outputs),
            alive=alive,
            value=value,
            reads=[(x, lambda needed: reads[needed].any(0))],
        )
        self.layers.append(Layer(name, module, padded, x, target, weight, mask, bias))
        return target

    def _is_own(self, node: fx.Node) -> bool:
        """Whether the module has a weight with a mask, and nobody else uses it."""
        return f"{node.target}.weight" in self._masks and node.target not in self._shared

    def _all_alive(self, count: int, dim: int) -> Features:
        """Return features for a tensor that no rule has made; it keeps all that it has."""
        every = torch.ones(count, dtype=torch.bool)
        zeros = torch.zeros(count, dtype=torch.float64)
        features = Features(dim, self.channels.new(count), every, torch.arange(count), every, zeros)
        self.channels.pin(features)
        return features

    def _depthwise(self, node: fx.Node) -> Features | None:
        conv, name, x = self._module(node), f"{node.target}.weight", self._image(node)
        if x is None or not self._is_own(node):
            return None
        tensors = {"weight": x.spread(conv.weight, 0.0)}
        if conv.bias is not None:
            tensors["bias"] = x.spread(conv.bias, 1.0)
        mask = x.spread(self._masks[name], False)
        reads = mask.flatten(1).any(1)
        alive = reads & (x.alive | x.constant if _pads_with_zeros(conv) else x.alive)
        value = x.value * tensors["weight"].flatten(1).sum(1) + tensors.get("bias", 0.0)
        target = x.then(value, alive, lambda needed: needed & reads)
        self.per_channel.append(PerChannel(conv, target, tensors, name, mask))
        return target

    def norm(self, node: fx.Node) -> Features | None:
        """Scale and shift by running statistics."""
        module, x = self._module(node), self._image(node)
        if x is None or node.target in self._shared or module.running_var is None:
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
        self.per_channel.append(PerChannel(module, target, tensors))
        return target

    def elementwise(self, node: fx.Node) -> Features | None:
        """Compute each element from those at its place: activations, sums, products."""
        inputs = node.all_input_nodes
        if not inputs or any(n not in self.features for n in inputs):
            return None
        first, *others = sources = [self.features[n] for n in inputs]
        one_rank = len({len(self._shapes[n]) for n in inputs}) == 1  # else broadcasting shifts
        if not one_rank or any(not first.matches(x) for x in others):
            return None
        for x in others:
            self.channels.unify(first, x)
        # what becomes of dead features is found by doing it to their values
        args, kwargs = fx.node.map_arg(
            (node.args, node.kwargs), lambda n: self.features[n].value.clone()
        )
        if node.op == "call_method":
            value = getattr(args[0], str(node.target))(*args[1:], **kwargs)
        else:
            operation: Any = self._module(node) or node.target
            value = operation(*args, **kwargs)
        alive = torch.stack([x.alive for x in sources]).any(0) | ~value.isfinite()
        target = first.then(value, alive)
        target.reads = [read for x in sources for read in x.then(value, alive).reads]
        return target

    def unchanged(self, node: fx.Node) -> Features | None:
        """Do nothing in eval mode."""
        x = self._input(node)
        if x is None or node.kwargs.get("training", False):  # F.dropout has it, modules have not
            return None
        return x.then(x.value, x.alive)

    def pool(self, node: fx.Node) -> Features | None:
        """Take the maximum of each window, or the average of all positions."""
        x = self._image(node)
        if x is None or len(self._shapes[node]) != _rank(self._operation(node)):
            return None
        return x.then(x.value, x.alive)

    def average_pool(self, node: fx.Node) -> Features | None:
        """Take the average of each window, which may reach into zero padding."""
        x, module = self.pool(node), self._module(node)
        if x is None:
            return None
        if module is None:  # of the functions no argument after kernel and stride is understood
            plain = len(node.args) <= 3 and set(node.kwargs) <= {"kernel_size", "stride"}
        else:
            padded = module.count_include_pad and _any(module.padding)
            plain = not padded and getattr(module, "divisor_override", None) is None
        if not plain:
            x.alive, x.value = x.alive | x.constant, torch.zeros_like(x.value)
        return x

    def mean(self, node: fx.Node) -> Features | None:
        """Average over positions, and over nothing else."""
        x = self._image(node)
        given: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        dims = [given] if isinstance(given, int) else given
        if x is None or not isinstance(dims, list | tuple):
            return None
        rank = len(self._input_shape(node))
        positions = all(isinstance(d, int) and d % rank > 1 for d in dims)
        return x.then(x.value, x.alive) if positions else None

    def flatten(self, node: fx.Node) -> Features | None:
        """(B, C, *positions) -> (B, C * positions), if it is said without the number C."""
        x, module = self._image(node), self._module(node)
        if x is None:
            return None
        rest: tuple[Any, ...] = (*node.args[1:], *node.kwargs.values())
        if module is not None:
            from_channels = (module.start_dim, module.end_dim) == (1, -1)
        elif "flatten" in str(node.target):
            from_channels = rest in ((1,), (1, -1))
        else:  # view and reshape
            sizes = rest[0] if len(rest) == 1 and isinstance(rest[0], tuple | list) else rest
            from_channels = len(sizes) == 2 and sizes[1] == -1
        before, after = self._input_shape(node), self._shapes[node]
        if not from_channels or len(after) != 2 or after[0] != before[0]:
            return None
        positions = after[1] // before[1]
        index = torch.arange(len(x.real)).repeat_interleave(positions)
        return Features(
            dim=1,
            channels=x.channels[index],
            real=x.real[index],
            carrier=x.carrier[index] * positions,
            alive=x.alive[index],
            value=x.value[index],
            reads=[(x, lambda needed: needed.view(-1, positions).any(1))],
        )

    def concatenate(self, node: fx.Node) -> Features | None:
        """Put tensors behind one another along the dimension of their features."""
        inputs, dim = (*node.args, None, None)[:2]
        dim = node.kwargs.get("dim", dim or 0)
        if not isinstance(inputs, list | tuple) or not isinstance(dim, int):
            return None
        dim %= len(self._shapes[node])
        parts: list[Features] = [x for x in map(self.features.get, inputs) if x is not None]
        if len(parts) < len(inputs) or any(x.dim != dim for x in parts):
            return None
        ends = list(accumulate(len(x.real) for x in parts))
        starts = [end - len(x.real) for x, end in zip(parts, ends, strict=True)]
        return Features(
            dim=parts[0].dim,
            channels=torch.cat([x.channels for x in parts]),
            real=torch.cat([x.real for x in parts]),
            carrier=torch.cat([x.carrier + start for x, start in zip(parts, starts, strict=True)]),
            alive=torch.cat([x.alive for x in parts]),
            value=torch.cat([x.value for x in parts]),
            reads=[
                (x, partial(_between, start, end))
                for x, start, end in zip(parts, starts, ends, strict=True)
            ],
        )


def _takes_from(place: object, dims: list[int], rank: int) -> bool:
    """Whether an index into a shape of `rank` sizes takes those of `dims` only."""
    if isinstance(place, int):
        return place % rank in dims
    if not isinstance(place, slice) or fx.Node in map(type, (place.start, place.stop, place.step)):
        return False
    return set(range(rank)[place]) <= set(dims)


def _between(start: int, end: int, needed: Tensor) -> Tensor:
    return needed[start:end]


def _shared_modules(model: nn.Module, graph: fx.GraphModule) -> set[str]:
    """Names of modules whose parameters are used more than once, or by others."""
    calls = Counter(str(n.target) for n in graph.graph.nodes if n.op == "call_module")
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            uses[id(operator.attrgetter(str(node.target))(graph))] += 2
    return {
        name
        for name, module in model.named_modules()
        if calls[name] > 1
        or any(uses[id(t)] > 1 for t in (*module._parameters.values(), *module._buffers.values()))
    }


def _rank(operation: Any) -> int:
    """Return the number of dimensions of a batch for Conv2d, max_pool2d and their like: 4."""
    return int(operation.__name__[-2]) + 2


def _any(padding: int | tuple[int, ...]) -> bool:
    return any(padding) if isinstance(padding, tuple) else padding != 0


def _pads_with_zeros(conv: Any) -> bool:
    if conv.padding_mode != "zeros" or conv.padding == "valid":
        return False
    return any(k > 1 for k in conv.kernel_size) if conv.padding == "same" else _any(conv.padding)


_LINEAR = {nn.Linear}
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
_ELEMENTWISE = {
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Softsign,
    nn.LogSigmoid,
    *(
        getattr(space, name)
        for space in (operator, torch, F) for name in _ELEMENTWISE_NAMES if hasattr(space, name)
    ),
    *(name + ending for name in _ELEMENTWISE_NAMES for ending in ("", "_")),
}  # fmt: skip

# by type of module (subclasses may do something else), function, or name of a method
RULES: dict[object, Callable[[Propagation, fx.Node], Features | None]] = {
    **dict.fromkeys(_LINEAR, Propagation.linear),
    **dict.fromkeys(_CONVOLUTIONS, Propagation.convolution),
    **dict.fromkeys(_NORMS, Propagation.norm),
    **dict.fromkeys(_ELEMENTWISE, Propagation.elementwise),
    **dict.fromkeys(_UNCHANGED, Propagation.unchanged),
    **dict.fromkeys(_POOLS, Propagation.pool),
    **dict.fromkeys(_AVERAGE_POOLS, Propagation.average_pool),
    **dict.fromkeys((torch.mean, torch.amax, "mean", "amax"), Propagation.mean),
    **dict.fromkeys(_FLATTENS, Propagation.flatten),
    **dict.fromkeys((torch.cat, torch.concat), Propagation.concatenate),
}

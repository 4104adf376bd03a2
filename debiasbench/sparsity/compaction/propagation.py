"""The features known so far in one pass through a traced network, and what rules ask about it."""

from __future__ import annotations

import operator
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from debiasbench.sparsity.compaction.liveness import Channels, Features, Layer, PerChannel

if TYPE_CHECKING:
    from collections.abc import Mapping


class Propagation:
    """Features of the tensors of a traced network, filled in from its inputs to its outputs.

    `model`: in float64, on the CPU, in eval mode; `graph`: traced from it.
    `shapes`: of every tensor of one forward pass, by the node of `graph` that computes it.
    `masks`: bool, of every convolution and linear weight, by its name; weights are 0 outside.
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
        self.shapes, self.masks = shapes, masks
        self._modules: dict[str, Any] = dict(model.named_modules())
        self._shared = _shared_modules(model, graph)

    def pin_inputs(self, node: fx.Node) -> None:
        """Keep all channels that a node reads."""
        for source in node.all_input_nodes:
            if source in self.features:
                self.channels.pin(self.features[source])

    def operation(self, node: fx.Node) -> Any:
        """Return a type of module, a function or the name of a method; None for all other nodes."""
        if node.op == "call_module":
            module = self.module(node)
            hooked = module._forward_hooks or module._forward_pre_hooks  # hooks may do anything
            return None if hooked else type(module)
        return node.target if node.op in ("call_function", "call_method") else None

    def module(self, node: fx.Node) -> Any:
        """Return the module that a node calls, None if it calls something else."""
        return self._modules[str(node.target)] if node.op == "call_module" else None

    def input(self, node: fx.Node) -> Features | None:
        """Return the features of the first input of a node, if they are known."""
        return self.features.get(node.all_input_nodes[0]) if node.all_input_nodes else None

    def image(self, node: fx.Node) -> Features | None:
        """Return the input of a node if its features are known and lie along dimension 1."""
        x = self.input(node)
        return x if x is not None and x.dim == 1 else None

    def input_shape(self, node: fx.Node) -> torch.Size:
        """Return the shape of the first input of a node."""
        return self.shapes[node.all_input_nodes[0]]

    def is_shared(self, node: fx.Node) -> bool:
        """Return whether the parameters of the module are also used elsewhere."""
        return node.target in self._shared

    def is_masked(self, node: fx.Node) -> bool:
        """Return whether the module has a weight with a mask, and no other node uses it."""
        return f"{node.target}.weight" in self.masks and not self.is_shared(node)

    def all_alive(self, count: int, dim: int) -> Features:
        """Return features for a tensor that no rule has computed; all its channels are kept."""
        every = torch.ones(count, dtype=torch.bool)
        zeros = torch.zeros(count, dtype=torch.float64)
        features = Features(dim, self.channels.new(count), every, torch.arange(count), every, zeros)
        self.channels.pin(features)
        return features

    def reads_other_sizes(self, node: fx.Node) -> bool:
        """Return whether a node such as `x.size(0)` or `x.shape[2:]` ignores the channel count."""
        x = self.input(node)
        if x is None or not (node.target == "size" or node.args[1:] == ("shape",)):
            return False
        indices = node.args[1:]
        if indices in ((), ("shape",)):  # all sizes, from which later nodes take some
            if any(user.target is not operator.getitem for user in node.users):
                return False
            indices = tuple(user.args[1] for user in node.users if user.users)
        others = [dim for dim in range(len(self.input_shape(node))) if dim != x.dim]
        return all(_takes_only(index, others, len(others) + 1) for index in indices)


def batch_rank(operation: Any) -> int:
    """Return the number of dimensions of a batch for Conv2d, max_pool2d and similar: 4."""
    return int(operation.__name__[-2]) + 2


def is_padded(padding: int | tuple[int, ...]) -> bool:
    """Return whether a padding, by dimension or for all, is not 0."""
    return any(padding) if isinstance(padding, tuple) else padding != 0


def _takes_only(index: object, dims: list[int], rank: int) -> bool:
    """Return whether an index into a shape of `rank` sizes takes only sizes in `dims`."""
    if isinstance(index, int):
        return index % rank in dims
    if not isinstance(index, slice) or fx.Node in map(type, (index.start, index.stop, index.step)):
        return False
    return set(range(rank)[index]) <= set(dims)


def _shared_modules(model: nn.Module, graph: fx.GraphModule) -> set[str]:
    """Return the names of modules whose parameters are used more than once."""
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

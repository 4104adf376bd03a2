"""Compaction of networks that cannot be traced: of the units between two linear layers.

The feed-forward blocks of transformers are such pairs: a linear layer, an activation, and a linear
layer that alone reads it. A pass of an example shows them. A unit that no weight of the second
layer reads is removed. So is one without weights in the first layer: it is constant, and what it
adds goes into the bias of the second. Everything else stays, attention heads too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from debiasbench.sparsity.names import joined, named_modules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ELEMENTWISE = {
    "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "sigmoid", "tanh",
    "hardswish", "hardsigmoid", "hardtanh", "softplus", "softsign", "logsigmoid", "clamp", "erf",
    "exp", "square", "abs", "neg", "pow", "add", "radd", "sub", "rsub", "mul", "rmul", "div",
    "truediv", "dropout",
}  # fmt: skip
_SIZES = {"size", "dim", "is_floating_point"}  # what says nothing of the values


@dataclass(eq=False)
class Pair:
    """Two linear layers; `between`: the tensors that only units of the first decide, in order."""

    first: str
    layer: nn.Linear
    between: list[tuple[Any, Any, Any, int]] = field(default_factory=list)
    readers: list[nn.Linear | None] = field(default_factory=list)  # None: anything else
    read: int = 0  # the tensor that the second layer reads
    begin: int = 0

    def values(self, units: Tensor) -> Tensor:
        """Return what the second layer reads (F,) for outputs (F,) of the first."""
        known = {self.begin: units}

        def value(x: Tensor) -> Tensor:
            return known[id(x)]

        for function, args, kwargs, key in self.between:
            given, named = _pytree.tree_map_only(Tensor, value, (args, kwargs))
            known[key] = function(*given, **named)
        return known[self.read]


class _Watch(TorchFunctionMode):
    """Finds the pairs in one pass; `layers`: linear layers by the identity of their weights."""

    def __init__(self, layers: Mapping[int, tuple[str, nn.Linear]]) -> None:
        super().__init__()
        self.pairs: list[Pair] = []
        self.calls: Counter[int] = Counter()
        self._layers, self._of = layers, dict[int, Pair]()
        self._alive: list[object] = []  # so that no identity is used twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        read = [x for x in _pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        name = getattr(func, "__name__", "")
        linear = self._layers.get(id(args[1])) if name == "linear" and len(args) > 1 else None
        found = {id(p): p for x in read if (p := self._of.get(id(x))) is not None}
        made = [x for x in _pytree.tree_leaves(output) if isinstance(x, Tensor)]
        # F.relu(x, inplace=True) also has the name relu
        same = id(output) in self._of and "dropout" not in name
        if len(found) == 1 and not same and self._is_elementwise(name, read, output):
            (pair,) = found.values()
            if id(output) not in self._of:  # dropout returns its input
                pair.between.append((func, args, kwargs, id(output)))
                self._of[id(output)] = pair
        elif made or name not in {"__get__", *_SIZES}:
            for pair in found.values():
                reader = linear[1] if linear and read[0] is args[0] else None
                pair.readers.append(reader)
                pair.read = id(args[0]) if reader is not None else 0
        if linear is not None:
            self.calls[id(args[1])] += 1
            pair = Pair(*linear, begin=id(output))
            self.pairs.append(pair)
            self._of[id(output)] = pair
        self._alive += [args, kwargs, output]
        return output

    def _is_elementwise(self, name: str, read: list[Tensor], output: object) -> bool:
        return (
            name.strip("_") in _ELEMENTWISE
            and not (name.endswith("_") and not name.endswith("__"))
            and all(id(x) in self._of for x in read)
            and isinstance(output, Tensor)
            and all(x.shape == output.shape for x in read)
        )


def shrink_between(
    model: nn.Module, masks: dict[str, Tensor], run: Callable[[], object]
) -> dict[str, tuple[int, ...]]:
    """Remove the units between pairs of linear layers; return those kept, by the first's weight.

    `model`: in float64, on the CPU, in eval mode; `run` passes an example through it. Changes
    `model` and `masks`.
    """
    names = {
        id(layer.weight): (joined(prefix, "weight"), layer)
        for prefix, layer in named_modules(model)
        if type(layer) is nn.Linear and not (layer._forward_hooks or layer._forward_pre_hooks)
    }
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    watch = _Watch(names)
    with watch:
        run()
    kept = {}
    for pair in watch.pairs:
        second = pair.readers[0] if len(pair.readers) == 1 else None
        if second is None:
            continue
        weights = [id(pair.layer.weight), id(second.weight)]
        if all(uses[w] == 1 and watch.calls[w] == 1 for w in weights):
            kept[pair.first] = _shrink(pair, second, names[weights[1]][0], masks)
    return kept


def _shrink(pair: Pair, second: nn.Linear, name: str, masks: dict[str, Tensor]) -> tuple[int, ...]:
    first, of_first, of_second = pair.layer, masks[pair.first], masks[name]
    alive, read = of_first.any(1), of_second.any(0)
    keep = alive & read
    if not keep.any():
        keep[0] = True  # a layer has at least one unit
    bias = first.weight.new_zeros(len(first.weight)) if first.bias is None else first.bias
    constant = pair.values(bias) * (~keep & ~alive)
    added = second.weight @ constant
    if second.bias is not None or added.any():
        old = 0 if second.bias is None else second.bias
        second.bias = nn.Parameter(old + added, requires_grad=second.weight.requires_grad)
    for layer, chosen in ((first, (keep, slice(None))), (second, (slice(None), keep))):
        layer.weight = nn.Parameter(layer.weight[chosen], layer.weight.requires_grad)
        layer.out_features, layer.in_features = layer.weight.shape
    if first.bias is not None:
        first.bias = nn.Parameter(first.bias[keep], first.bias.requires_grad)
    masks[pair.first], masks[name] = of_first[keep], of_second[:, keep]
    return tuple(keep.nonzero()[:, 0].tolist())

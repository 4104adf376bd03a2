"""Rules for operations without weights: activations, sums, pooling, flattening, concatenation.

A rule returns the features of the tensor that a node computes, or None if it cannot tell.
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, fx

from debiasbench.sparsity.compaction.liveness import Features
from debiasbench.sparsity.compaction.propagation import Propagation, batch_rank, is_padded


def elementwise(network: Propagation, node: fx.Node) -> Features | None:
    """Compute each element from the elements at the same place: activations, sums, products."""
    inputs = node.all_input_nodes
    if not inputs or any(n not in network.features for n in inputs):
        return None
    first, *others = sources = [network.features[n] for n in inputs]
    one_rank = len({len(network.shapes[n]) for n in inputs}) == 1  # else broadcasting shifts
    if not one_rank or any(not first.matches(x) for x in others):
        return None
    for x in others:
        network.channels.unify(first, x)
    # the operation itself, on the values of dead features, tells what they become
    args, kwargs = fx.node.map_arg(
        (node.args, node.kwargs), lambda n: network.features[n].value.clone()
    )
    if node.op == "call_method":
        value = getattr(args[0], str(node.target))(*args[1:], **kwargs)
    else:
        operation: Any = network.module(node) or node.target
        value = operation(*args, **kwargs)
    alive = torch.stack([x.alive for x in sources]).any(0) | ~value.isfinite()
    target = first.then(value, alive)
    target.reads = [read for x in sources for read in x.then(value, alive).reads]
    return target


def unchanged(network: Propagation, node: fx.Node) -> Features | None:
    """Return the input: what dropout and similar operations do in eval mode."""
    x = network.input(node)
    if x is None or node.kwargs.get("training", False):  # only F.dropout has it, not modules
        return None
    return x.then(x.value, x.alive)


def pool(network: Propagation, node: fx.Node) -> Features | None:
    """Take the maximum of each window, or the average of all positions."""
    x = network.image(node)
    if x is None or len(network.shapes[node]) != batch_rank(network.operation(node)):
        return None
    return x.then(x.value, x.alive)


def average_pool(network: Propagation, node: fx.Node) -> Features | None:
    """Take the average of each window, which may include zero padding."""
    x, module = pool(network, node), network.module(node)
    if x is None:
        return None
    if module is None:  # of the functions, only kernel and stride are understood
        plain = len(node.args) <= 3 and set(node.kwargs) <= {"kernel_size", "stride"}
    else:
        padded = module.count_include_pad and is_padded(module.padding)
        plain = not padded and getattr(module, "divisor_override", None) is None
    if not plain:
        x.alive, x.value = x.alive | x.constant, torch.zeros_like(x.value)
    return x


def mean(network: Propagation, node: fx.Node) -> Features | None:
    """Average over positions only."""
    x = network.image(node)
    given: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    dims = [given] if isinstance(given, int) else given
    if x is None or not isinstance(dims, list | tuple):
        return None
    rank = len(network.input_shape(node))
    positions = all(isinstance(d, int) and d % rank > 1 for d in dims)
    return x.then(x.value, x.alive) if positions else None


def flatten(network: Propagation, node: fx.Node) -> Features | None:
    """(B, C, *positions) -> (B, C * positions), unless the code names the number C."""
    x, module = network.image(node), network.module(node)
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
    before, after = network.input_shape(node), network.shapes[node]
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


def concatenate(network: Propagation, node: fx.Node) -> Features | None:
    """Concatenate tensors along the dimension of their features."""
    inputs, dim = (*node.args, None, None)[:2]
    dim = node.kwargs.get("dim", dim or 0)
    if not isinstance(inputs, list | tuple) or not isinstance(dim, int):
        return None
    dim %= len(network.shapes[node])
    parts: list[Features] = [x for x in map(network.features.get, inputs) if x is not None]
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


def _between(start: int, end: int, needed: Tensor) -> Tensor:
    return needed[start:end]

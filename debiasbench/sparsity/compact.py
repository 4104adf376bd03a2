"""Exact removal of dead channels: a masked network in, a smaller ordinary network out."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree

from debiasbench.sparsity.errors import SparsityError, unknown
from debiasbench.sparsity.guards import check_mask
from debiasbench.sparsity.liveness import choose, over_kernel
from debiasbench.sparsity.params import maskable
from debiasbench.sparsity.propagation import Propagation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from debiasbench.sparsity.liveness import Features, Layer, PerChannel

    Kept = Callable[[Features], Tensor]  # (F,) bool

TOLERANCE = 1e-8  # of outputs in float64, relative to the largest


_ADVICE = (
    "Its forward may depend on types, devices or numbers of channels that torch.fx does not show: "
    "read them off the tensors, or compact those of its submodules that do without"
)


class CannotCompact(SparsityError):  # noqa: N818 - it says what is wrong
    """A network that cannot be traced, or whose small version would compute something else."""


@dataclass(frozen=True)
class Compacted:
    """A small network, and what became of the large one.

    `masks`: of every maskable weight of `model`; an empty filter makes a constant channel.
    `kept`: which output channels a layer kept, in order, by the name of its weight; layers that
    are not listed kept all. A layer may have one more channel at its end: the constant one.
    """

    model: nn.Module
    masks: dict[str, Tensor]
    kept: dict[str, tuple[int, ...]]
    parameters: int  # of `model`
    original_parameters: int


@torch.no_grad()
def compact(model: nn.Module, masks: Mapping[str, Tensor], example: Tensor) -> Compacted:
    """Return a copy of `model` without the channels that its masks have made useless.

    In eval mode both compute the same but for rounding, at any input size. Not so in training
    mode, where a BatchNorm subtracts from a constant channel all that it brings.

    A channel goes if nothing that matters reads it, or if it reads nothing that varies; what is
    constant is folded into the biases of its readers. Padded convolutions need it in their input:
    for them all constant channels of a tensor become one, the last, made by an empty filter.
    Deadness is a matter of masks; active weights of value 0 stay. The input and the output keep
    all channels; so does what operations without a rule read or make (see `propagation`).

    `model`: must be traceable by `torch.fx`; it is left as it is. `masks`: bool, by parameter
    name; what has none is dense. `example`: a small batch of inputs, (B, ...), to find shapes
    with and to compare the outputs of both networks on.

    Compacting the result with its masks changes nothing.

    Raises `SparsityError` for masks that do not fit `model`, and `CannotCompact` if it does not
    run in float64, cannot be traced, or has other outputs without its dead channels.
    """
    small = copy.deepcopy(model).cpu().double().eval()  # so that only the last cast rounds
    example = example.detach().cpu()
    example = example.double() if example.is_floating_point() else example
    weights = maskable(small)
    _check(masks, weights)
    known = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    known |= {name: mask.cpu().clone() for name, mask in masks.items()}
    expected = _outputs(small, example, "in float64 on the CPU")
    graph, shapes = _trace(small, example, expected)

    found = Propagation(small, graph, shapes, known)
    kept = choose(list(found.features.values()), found.layers, found.channels)
    channels: dict[str, tuple[int, ...]] = {}
    for layer in found.layers:
        known[layer.name] = _shrink_layer(layer, kept)
        channels[layer.name] = _real(layer.target, kept)
    for part in found.per_channel:
        _shrink_per_channel(part, kept)
        if part.mask is not None:
            known[part.name] = part.mask[kept(part.target)]
            channels[part.name] = _real(part.target, kept)
    _verify(small, example, expected)

    _restore(small, model)
    parameters = dict(small.named_parameters(remove_duplicate=False))
    return Compacted(
        model=small,
        masks={name: mask.to(parameters[name].device) for name, mask in known.items()},
        kept={name: channels[name] for name in known if name in channels},
        parameters=sum(p.numel() for p in small.parameters()),
        original_parameters=sum(p.numel() for p in model.parameters()),
    )


def _check(masks: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    for name, mask in masks.items():
        if name not in weights:
            raise unknown("weight", name, weights)
        check_mask(name, weights[name], mask)


def _trace(
    model: nn.Module, example: Tensor, expected: object
) -> tuple[fx.GraphModule, dict[fx.Node, torch.Size]]:
    """Return the graph of `model` and the shape of every tensor in it."""
    name = type(model).__name__
    try:
        graph = fx.symbolic_trace(model)
    except Exception as error:  # whatever user code raises when it meets a placeholder
        raise CannotCompact(
            f"torch.fx cannot trace {name}: {error}. Write its forward without branches and loops "
            "that depend on tensors, or compact those of its submodules that can be traced"
        ) from error
    recorder = _Recorder(graph)
    difference = _difference(recorder.run(example.clone()), expected)
    if not difference <= TOLERANCE:
        raise CannotCompact(
            f"What torch.fx traced of {name} computes something else than its forward (difference "
            f"{difference:.1e}); an operation such as `x += y` on a tensor that is used again, or "
            "randomness in eval mode, does that. Write it without"
        )
    for tensor, reader in recorder.overwritten:
        raise CannotCompact(
            f"In {name}, {reader} reads {tensor} after an operation in place has overwritten it. "
            "Give that operation inplace=False, and its own output to those who want it"
        )
    return graph, recorder.shapes


class _Recorder(fx.Interpreter):
    """Runs a traced network and notes shapes, and tensors that are read when overwritten."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.shapes: dict[fx.Node, torch.Size] = {}
        self.overwritten: list[tuple[fx.Node, fx.Node]] = []  # a tensor, and a later reader
        self._versions: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and note what it reads and makes."""
        inputs = [i for i in n.all_input_nodes if i in self._versions]
        changed = [i for i in inputs if self.env[i]._version != self._versions[i]]
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.overwritten += [(i, n) for i in changed]
            self.shapes[n], self._versions[n] = result.shape, result._version
        return result


def _verify(small: nn.Module, example: Tensor, expected: object) -> None:
    without = "without its dead channels"
    difference = _difference(_outputs(small, example, without), expected)
    if not difference <= TOLERANCE:
        raise CannotCompact(
            f"The outputs of {type(small).__name__} change by {difference:.1e} of the largest "
            f"{without}. {_ADVICE}"
        )


def _outputs(model: nn.Module, example: Tensor, how: str) -> object:
    try:
        return model(example.clone())
    except Exception as error:  # whatever user code raises
        raise CannotCompact(
            f"{type(model).__name__} does not run {how}: {error}. {_ADVICE}"
        ) from error


def _difference(found: object, expected: object) -> float:
    """Return the largest difference between outputs, relative to the largest of each tensor."""
    differences = [0.0]
    for a, b in zip(_tensors(found), _tensors(expected), strict=True):
        if a.shape != b.shape:
            return math.inf
        if b.numel():
            scale = float(b.abs().max())
            differences.append(float((a - b).abs().max()) / (scale or 1.0))
    return float(torch.tensor(differences).max())  # NaN if one is


def _tensors(output: object) -> list[Tensor]:
    leaves = _pytree.tree_leaves(output)
    return [leaf.double() for leaf in leaves if isinstance(leaf, Tensor)]


def _real(x: Features, kept: Kept) -> tuple[int, ...]:
    return tuple(kept(x)[x.real].nonzero()[:, 0].tolist())


def _shrink_layer(layer: Layer, kept: Kept) -> Tensor:
    """Cut a layer down to what is kept, fold in the constants that are lost; return its mask."""
    x, module = layer.source, layer.module
    columns, rows = kept(x), kept(layer.target)
    # a row that has to stay for the sake of another tensor, but is not read in this one
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


def _shrink_per_channel(part: PerChannel, kept: Kept) -> None:
    """Cut a BatchNorm or a depthwise convolution down to the channels that are kept."""
    channels = kept(part.target)
    for attribute, values in part.tensors.items():
        _assign(part.module, attribute, values[channels])
    depthwise = part.mask is not None
    for size in ("in_channels", "out_channels", "groups") if depthwise else ("num_features",):
        setattr(part.module, size, int(channels.sum()))


def _assign(module: Any, attribute: str, values: Tensor) -> None:
    old = getattr(module, attribute)
    if attribute.startswith("running"):
        setattr(module, attribute, values)
    else:
        trained = (module.weight if old is None else old).requires_grad
        setattr(module, attribute, nn.Parameter(values, requires_grad=trained))


def _restore(small: nn.Module, model: nn.Module) -> None:
    """Give every module the mode of its original, and every tensor its type and device."""
    for module, original in zip(small.modules(), model.modules(), strict=True):
        module.training = original.training
        for name, p in module.named_parameters(recurse=False):
            like: Any = getattr(original, name)
            if like is None:  # a bias that constants were folded into
                like = original.weight
            p.data, p.grad = p.data.to(like), None
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(getattr(original, name))

"""The entry of compaction: a copy of a masked network without its dead channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from debiasbench.sparsity.compaction.between import shrink_between
from debiasbench.sparsity.compaction.liveness import choose
from debiasbench.sparsity.compaction.rules import propagate
from debiasbench.sparsity.compaction.shrinking import (
    restore_modes,
    restore_tensors,
    shrink_layer,
    shrink_per_channel,
)
from debiasbench.sparsity.compaction.tracing import (
    check_outputs,
    check_runs,
    converted,
    outputs,
    trace,
)
from debiasbench.sparsity.copies import copied, to_float64
from debiasbench.sparsity.errors import CannotCompact, SparsityError, unknown
from debiasbench.sparsity.guards import check_mask
from debiasbench.sparsity.params import maskable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debiasbench.sparsity.compaction.liveness import Features
    from debiasbench.sparsity.compaction.shrinking import Kept


@dataclass(frozen=True)
class Compacted:
    """A small network, and which channels of the original network it kept.

    `masks`: of every maskable weight of `model`; an empty filter makes a constant channel.
    `kept`: indices of the output channels that a layer kept, in order, by the name of its weight;
    layers that are not listed kept all. A layer may have one extra channel at its end: the
    constant one.
    """

    model: nn.Module
    masks: dict[str, Tensor]
    kept: dict[str, tuple[int, ...]]
    parameters: int  # of `model`
    original_parameters: int


@torch.no_grad()
def compact(
    model: nn.Module, masks: Mapping[str, Tensor], example: Tensor | Mapping[str, Tensor]
) -> Compacted:
    """Return a copy of `model` without the channels that its masks make useless.

    In eval mode both networks compute the same up to rounding, at any input size. In training mode
    they do not: a BatchNorm subtracts the mean of a constant channel, and so the channel's effect.

    A channel is removed if nothing that matters reads it, or if it reads nothing that varies; the
    value of a constant channel is folded into the biases of its readers. A padded convolution needs
    constants in its input: for it, all constant channels of a tensor become one last channel, made
    by an empty filter. Masks alone decide what is dead; active weights of value 0 stay. The input
    and the output keep all channels, and so do tensors that operations without a rule read or
    compute (see `compaction.rules`). The copy is without wrappers such as `torch.compile`; what the
    network caches in evaluation mode is in it as it is in `model`.

    `model`: must be traceable by `torch.fx`; it is not changed. If its inputs are a mapping, it may
    be untraceable, but then only units between two linear layers are removed, as in the
    feed-forward blocks of transformers (see `compaction.between`). `masks`: bool, by parameter
    name; a weight without a mask is dense. `example`: a small batch of inputs (B, ...), used to
    find shapes and to compare the outputs of both networks.

    Compacting the result with its masks again changes nothing.

    Raises `SparsityError` for masks that do not fit `model`, and `CannotCompact` if it does not
    run in float64, cannot be copied or traced, or has different outputs without its dead channels.
    """
    given, example = example, converted(example, torch.float64, "cpu")
    small = _copied(model)
    attributes_back = to_float64(small)  # so that only the last cast rounds
    weights = maskable(small)
    _check(masks, weights)
    masks_of = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    masks_of |= {name: mask.cpu().clone() for name, mask in masks.items()}
    expected = outputs(small, example, "in float64 on the CPU")
    if isinstance(example, Tensor):
        channels = _shrink_traced(small, masks_of, example, expected)
    else:
        channels = shrink_between(small, masks_of, lambda: outputs(small, example, "observed"))
    check_outputs(small, example, expected)

    attributes_back()
    restore_tensors(small, model)
    check_runs(small, model, given)
    restore_modes(small, model)
    parameters = dict(small.named_parameters(remove_duplicate=False))
    return Compacted(
        model=small,
        masks={name: mask.to(parameters[name].device) for name, mask in masks_of.items()},
        kept={name: channels[name] for name in masks_of if name in channels},
        parameters=sum(p.numel() for p in small.parameters()),
        original_parameters=sum(p.numel() for p in model.parameters()),
    )


def _shrink_traced(
    small: nn.Module, masks_of: dict[str, Tensor], example: Tensor, expected: object
) -> dict[str, tuple[int, ...]]:
    """Cut the layers of a traceable network and their masks; return the channels kept."""
    graph, shapes = trace(small, example, expected)
    network = propagate(small, graph, shapes, masks_of)
    kept = choose(list(network.features.values()), network.layers, network.channels)
    channels: dict[str, tuple[int, ...]] = {}
    for layer in network.layers:
        masks_of[layer.name] = shrink_layer(layer, kept)
        channels[layer.name] = _real_channels(layer.target, kept)
    for part in network.per_channel:
        shrink_per_channel(part, kept)
        if part.mask is not None:
            masks_of[part.name] = part.mask[kept(part.target)]
            channels[part.name] = _real_channels(part.target, kept)
    return channels


def _copied(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode."""
    try:
        # training mode first: there, networks that override `train` empty what they have cached
        return copied(model).train().eval()
    except SparsityError as error:
        raise CannotCompact(str(error)) from error


def _check(masks: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    for name, mask in masks.items():
        if name not in weights:
            raise unknown("weight", name, weights)
        check_mask(name, weights[name], mask)


def _real_channels(x: Features, kept: Kept) -> tuple[int, ...]:
    """Return the indices, without carriers, of the channels kept."""
    return tuple(kept(x)[x.real].nonzero()[:, 0].tolist())

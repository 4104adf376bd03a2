"""The head of a network: its last linear layer, and a check that this layer alone classifies."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from debiasbench.common.errors import OptionError
from debiasbench.common.randomness import seeded
from debiasbench.core.modes import evaluating
from debiasbench.core.probe import probe_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debiasbench.core.inputs import Inputs

Head: TypeAlias = "nn.Linear | nn.Conv2d"
"""A linear layer, or a 1x1 convolution, which is a linear layer at each position."""


class NoHead(nn.Identity):
    """Stands in the place of a head that was removed: the network returns its features."""

    def __init__(self, *, pooled: bool) -> None:
        super().__init__()
        self.pooled = pooled  # whether features are a mean over positions, as of a 1x1 convolution

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of every layer's input
        """Return the features, with positions of size 1 if they are a mean over positions."""
        return input.mean((2, 3), keepdim=True) if self.pooled else input


def fresh(head: Head, seed: int) -> Head:
    """Return a layer of the same type and shape, trainable, with torch's default initialisation."""
    layer = copy.deepcopy(head).cpu()  # every device gets the same values
    with seeded(seed):
        layer.reset_parameters()
    layer.requires_grad_(True).zero_grad()
    return layer.to(head.weight.device)


def put(network: nn.Module, head: nn.Module, layer: nn.Module) -> None:
    """Put a layer in the place of the head, wherever the network holds it.

    Raises `OptionError` if the network is its own head.
    """
    places = [
        (module, name)
        for module in network.modules()
        for name, child in module._modules.items()
        if child is head
    ]
    if not places:
        raise OptionError(
            f"The head is the whole network ({type(network).__name__}), so nothing holds another "
            "head in its place. Use another --model"
        )
    for module, name in places:
        setattr(module, name, layer)


def last_linear(network: nn.Module) -> Head | None:
    """Return the last `nn.Linear`; if there is none, the last 1x1 convolution."""
    modules = list(network.modules())[::-1]
    for module in modules:
        if isinstance(module, nn.Linear):
            return module
    for module in modules:
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1:
            return module
    return None


@contextmanager
def recorded(head: Head | NoHead) -> Iterator[list[Tensor]]:
    """Yield a list that collects the features (B, D) of each call of a head.

    They are the head's input, or for a convolution the mean of its input over all positions.
    """
    features: list[Tensor] = []
    pooled = head.pooled if isinstance(head, NoHead) else isinstance(head, nn.Conv2d)

    def record(_module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        features.append(_flat(args[0] if args else named["input"], pooled=pooled))

    handle = head.register_forward_pre_hook(record, with_kwargs=True)
    try:
        yield features
    finally:
        handle.remove()


def _flat(x: Tensor, *, pooled: bool) -> Tensor:
    return x.mean((2, 3)) if pooled else x.flatten(1)


def check_head(network: nn.Module, head: Head, inputs: Inputs, *, linear: bool) -> None:
    """Raise `OptionError` unless `head` decides the logits alone; changes nothing.

    This is tried on a few `inputs` with other weights of the head. `linear`: the logits must also
    be the outputs of the head, so that another linear classifier can replace it.
    """
    name = next((n for n, module in network.named_modules() if module is head), None)
    if name is None:
        raise OptionError(f"`head` returned a {type(head).__name__} that is not in the network")
    layer = f"{name or 'the network'} ({type(head).__name__})"
    if not isinstance(head._parameters.get("weight"), nn.Parameter):
        raise OptionError(f"the weight of {layer} is computed, so it cannot be replaced")
    rng = torch.Generator().manual_seed(0)
    own = dict(head.named_parameters(prefix=name, recurse=False))
    other = {
        n: torch.randn(p.shape, generator=rng).div(p[0].numel() ** 0.5).to(p)
        for n, p in own.items()
    }
    constant, features = _forward(network, head, {n: 0 * p for n, p in other.items()}, inputs)
    if len(features) != 1:
        raise OptionError(f"{layer} is used {len(features)} times for a prediction, must be once")
    if not _close(constant, constant[:1].expand_as(constant)):
        raise OptionError(
            f"{layer} does not decide the logits alone: another part of the network contributes, "
            "such as a second classifier"
        )
    # opposite weights, since an operation that follows may cut off one of the signs
    trials = [{n: sign * p for n, p in other.items()} for sign in (1, -1)]
    tried = [_forward(network, head, weights, inputs) for weights in trials]
    if not all(_close(features[0], same) for _, (same,) in tried):
        raise OptionError(f"another layer shares the weight of {layer}")
    if all(_close(logits, constant) for logits, _ in tried):
        raise OptionError(f"the logits do not depend on {layer}")
    if linear and not all(
        _close(logits, _outputs(name, weights, same))
        for weights, (logits, (same,)) in zip(trials, tried, strict=True)
    ):
        raise OptionError(
            f"the logits are not the outputs of {layer}, since operations follow that change them"
        )


def _outputs(name: str, weights: dict[str, Tensor], features: Tensor) -> Tensor:
    """Return the outputs of a head with other weights for features (B, D)."""
    weight, bias = (weights.get(f"{name}.{part}".lstrip(".")) for part in ("weight", "bias"))
    assert weight is not None
    return F.linear(features, weight.flatten(1), bias)


@torch.no_grad()
def _forward(
    network: nn.Module, head: Head, weights: dict[str, Tensor], inputs: Inputs
) -> tuple[Tensor, list[Tensor]]:
    """Return the logits with other weights, and the features of each call of the head."""
    with seeded(0), evaluating(network), recorded(head) as features:
        state = {**probe_state(network), **weights}
        logits: Tensor = functional_call(network, state, (inputs,))
    return logits, features


def _close(a: Tensor, b: Tensor) -> bool:
    """Return whether tensors are equal up to the rounding errors of any precision."""
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-2 * b.abs().max() + 1e-6)

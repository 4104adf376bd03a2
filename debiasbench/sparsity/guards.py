"""Checks between a model, its optimizer, its masks, and the ranks of a parallel training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from debiasbench.sparsity.errors import SparsityError
from debiasbench.sparsity.masks import digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn
    from torch.optim import Optimizer


def check_holds(optimizer: Optimizer, weights: Mapping[str, nn.Parameter]) -> None:
    """Raise unless the optimizer holds every weight that requires a gradient."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, p in weights.items():
        if p.requires_grad and id(p) not in held:
            raise SparsityError(
                f"The optimizer does not hold {name}: attach after the model is on its device, to "
                "the optimizer that trains it"
            )


def check_same_shapes(
    shapes: Mapping[str, torch.Size], weights: Mapping[str, nn.Parameter]
) -> None:
    """Raise unless masks of `shapes` are masks of `weights`."""
    for name in {**shapes, **weights}:
        expected = tuple(shapes[name]) if name in shapes else "no such weight"
        actual = tuple(weights[name].shape) if name in weights else "no such weight"
        if expected != actual:
            raise SparsityError(
                f"These masks belong to a network with other layers: {name} is {expected} in the "
                f"masks and {actual} in the network"
            )


def check_mask(name: str, weight: Tensor, mask: Tensor) -> None:
    """Raise unless `mask` is a bool mask of `weight`, which is 0 off it."""
    if mask.dtype != torch.bool or mask.shape != weight.shape:
        raise SparsityError(
            f"The mask of {name} must be bool of shape {tuple(weight.shape)}, not {mask.dtype} of "
            f"{tuple(mask.shape)}"
        )
    if (weight[~mask.to(weight.device)] != 0).any():
        raise SparsityError(
            f"{name} has weights off its mask that are not 0: multiply it by the mask first"
        )


def check_ranks(masks: Mapping[str, Tensor]) -> None:
    """Raise unless all processes of a data-parallel training hold equal masks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    digests: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(digests, digest(masks))
    if len(set(digests)) > 1:
        raise SparsityError(
            f"Masks differ between ranks ({', '.join(digests)}): give every rank the same seed, "
            "and wrap the model in DistributedDataParallel so that gradients are reduced"
        )

"""Checks between a model, its optimizer, its masks, and the ranks of a parallel training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from debiasbench.sparsity.errors import NonFiniteGradient, NotAttached, SparsityError
from debiasbench.sparsity.masks import digest
from debiasbench.sparsity.names import named_parameters
from debiasbench.sparsity.transfer import finite_flags, to_host

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from debiasbench.sparsity.criteria import MaskSettings
    from debiasbench.sparsity.layer import Layer
    from debiasbench.sparsity.layout import Layout


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


def check_pattern(
    updater: MaskSettings, masks: Mapping[str, Tensor], layouts: Mapping[str, Layout]
) -> None:
    """Raise unless masks keep to the updater's pattern; full masks do, as those of dense layers."""
    pattern = updater.rows()
    if pattern is None:
        return
    for name, mask in masks.items():
        if bool(mask.all()):
            continue
        by_output = layouts[name].by_output(mask)
        pattern.per_row(
            name, by_output.shape, int(mask.sum())
        )  # raises for a shape that never fits
        counts = set(pattern.rows(by_output).sum(1).tolist())
        # SRigL removes neurons, which have no weights then
        fits = len(counts - {0}) == 1 if pattern.n is None else counts == {pattern.n}
        if not fits:
            raise SparsityError(
                f"The mask of {name} does not keep to the pattern {updater.pattern}: its rows have "
                f"{', '.join(map(str, sorted(counts)))} weights. Use pattern=unstructured"
            )


def check_reported(
    module: nn.Module, masks: Mapping[str, Tensor], densities: Mapping[str, float]
) -> None:
    """Raise unless densities agree with masks, and the weights of `module` are 0 off the masks.

    Counts the weights that the module has now, by name: they may be others than those that were
    made sparse. A weight with a density but no mask has at most that fraction of non-zero values.
    """
    weights = dict(named_parameters(module))
    for name in {**densities, **masks}:
        if name not in weights:
            raise NotAttached(f"{name} has a density or a mask, but the network has no such weight")
        weight, mask = weights[name].detach(), masks.get(name)
        size, nonzero = weight.numel(), int(weight.count_nonzero())
        if mask is None:
            if nonzero > round(densities[name] * size):
                raise NotAttached(
                    f"{name} has {nonzero} weights of {size} that are not 0, more than its density "
                    f"{densities[name]:g} says"
                )
            continue
        if mask.shape != weight.shape:
            raise NotAttached(
                f"{name} has shape {tuple(weight.shape)}, but its mask has {tuple(mask.shape)}"
            )
        if off := nonzero - int((weight * mask.to(weight.device)).count_nonzero()):
            raise NotAttached(
                f"{name} has {off} weights of {size} that its mask leaves out but that are not 0"
            )
        active = int(mask.count_nonzero())
        if name in densities and round(densities[name] * size) != active:
            raise NotAttached(
                f"{name} has {active} active weights of {size} in its mask, but its density is "
                f"{densities[name]:g}"
            )


def check_finite(gradients: Mapping[str, Tensor], step: int) -> None:
    """Raise `NonFiniteGradient` if a gradient is NaN or infinite; waits for the device."""
    if gradients:
        check_flags(gradients, to_host([finite_flags(list(gradients.values()))]), step)


def check_flags(names: Iterable[str], finite: Sequence[int], step: int) -> None:
    """Raise `NonFiniteGradient` for the first weight whose gradient is not `finite`."""
    for name, flag in zip(names, finite, strict=True):
        if not flag:
            raise NonFiniteGradient(
                f"The gradient of {name} is not finite at step {step}, when the topology should "
                "change: lower the learning rate, or clip gradients"
            )


def check_updated(updater: str, layers: Iterable[Layer], new: Mapping[str, Tensor]) -> None:
    """Raise unless `new` has a bool mask for each of the layers, as an updater must return."""
    for layer in layers:
        mask, shape = new.get(layer.name), layer.mask.shape
        if mask is None or mask.shape != shape or mask.dtype != torch.bool:
            raise SparsityError(
                f"{updater}.update returned no bool mask of shape {tuple(shape)} for {layer.name}"
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

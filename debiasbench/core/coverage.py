"""Find rows and columns of images that a network never reads, by gradients of its logits."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call

from debiasbench.common.errors import OptionError
from debiasbench.common.randomness import seeded
from debiasbench.core.modes import evaluating
from debiasbench.core.probe import probe_state

if TYPE_CHECKING:
    from collections.abc import Sequence

TRIALS = 8  # random inputs, in case that units of a network are dead for some of them
TOLERATED = 0.1  # share of unread pixels with which a network is used, after a warning


def check_reads_whole(network: nn.Module, shape: Sequence[int], owner: str) -> None:
    """Raise `OptionError` if a network never reads much of an image, warn if it is little.

    Only whole rows and columns count: a transformer whose patches do not cover the image never
    reads the last ones, whereas a single pixel may have no influence by chance. `shape`: (C, H, W).
    `owner`: name of the model in messages. The network is not changed.
    """
    seen = _seen(network, shape)
    if seen is None:
        return
    (height, rows), (width, columns) = ((len(s), int(s.sum())) for s in seen)
    missing = 1 - rows * columns / (height * width)
    if not missing:
        return
    message = (
        f"{owner} reads only {rows} of {height} rows and {columns} of {width} columns of the "
        f"images, so {missing:.0%} of their pixels have no influence. {_advice(network, shape)}"
    )
    if missing > TOLERATED:
        raise OptionError(message)
    warnings.warn(message, stacklevel=2)


def _seen(network: nn.Module, shape: Sequence[int]) -> tuple[Tensor, Tensor] | None:
    """Return which rows (H,) and columns (W,) influence the logits, or None if that is unknown."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    seen = torch.zeros(tuple(shape[1:]), dtype=torch.bool)
    with seeded(0), evaluating(network), torch.enable_grad():
        state = probe_state(network)
        for _ in range(TRIALS):
            x = torch.randn(2, *shape).to(device).requires_grad_()
            try:
                # a copy, since a network may change its inputs in place
                logits = functional_call(network, state, (x.clone(),))
                weights = torch.randn(logits.shape).to(logits)
                (gradient,) = torch.autograd.grad((logits * weights).sum(), x)
            except Exception:  # some operations have no gradient, or refuse random values
                return None
            seen |= (gradient != 0).any(0).any(0).cpu()
            rows, columns = seen.any(1), seen.any(0)
            if rows.all() and columns.all():
                break
    return (rows, columns) if seen.any() else None


def _advice(network: nn.Module, shape: Sequence[int]) -> str:
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.stride == module.kernel_size != (1, 1):
            sides = [-(-n // k) * k for n, k in zip(shape[1:], module.kernel_size, strict=True)]
            if sides != list(shape[1:]):
                return (
                    f"Its patches of {'x'.join(map(str, module.kernel_size))} would cover images "
                    f"of {'x'.join(map(str, sides))}, such as those of `data import --size "
                    f"{'x'.join(map(str, sides))}`. Or use another --model"
                )
    return "Use images of another size, or another --model"

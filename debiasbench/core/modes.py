"""Training mode and evaluation mode of modules."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and restore the mode of every submodule afterwards."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        # by `train`, which a module may override to act, as adapters that merge weights do;
        # parents come before their parts
        module.train(modes[0][1])
        for m, mode in modes:
            if m.training != mode:
                m.train(mode)


def train_mode(module: nn.Module) -> None:
    """Put a module into training mode, except frozen parts, where BatchNorm keeps its statistics.

    A part is frozen if it has parameters and none of them requires a gradient.
    """
    module.train()
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            part.eval()


def normalises(module: nn.Module) -> bool:
    """Return whether a BatchNorm layer is in training mode, where it needs two samples or more."""
    from torch.nn.modules.batchnorm import _NormBase

    return any(isinstance(m, _NormBase) and m.training for m in module.modules())


def is_finite(module: nn.Module) -> bool:
    """Return whether no parameter or buffer is NaN or infinite."""
    return all(bool(value.isfinite().all()) for value in module.state_dict().values())

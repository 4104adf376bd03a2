"""Which parameters may be sparse: weights of convolution and linear layers, by module type."""

from __future__ import annotations

from torch import nn

MASKABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def maskable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the maskable weights of a module by name, in module order; a shared one once."""
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for name, layer in module.named_modules():
        if isinstance(layer, MASKABLE) and id(layer.weight) not in seen:
            seen.add(id(layer.weight))
            weight = layer.weight
            assert isinstance(weight, nn.Parameter)  # true of every module in MASKABLE
            found[f"{name}.weight" if name else "weight"] = weight
    return found

"""The state with which a network is tried before it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


def probe_state(network: nn.Module) -> dict[str, Tensor]:
    """Return copies of a network's buffers, and random values for weights that are all 0.

    Weights that are 0 at the start of the training, such as those of a head, hide what the trained
    network will depend on. The random values are drawn from torch's global generator.
    """
    state = {name: value.clone() for name, value in network.named_buffers()}
    for name, p in network.named_parameters():
        if p.dim() > 1 and not p.any():
            state[name] = torch.randn(p.shape).mul(0.02).to(p)
    return state

"""Compaction refuses networks that it cannot follow, and masks that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.sparsity.compaction.compact import compact
from debiasbench.sparsity.errors import CannotCompact, SparsityError
from tests.sparsity.compaction.nets import (
    built,
    mlp,
    noise,
    sparsify,
)


def test_a_network_that_cannot_be_traced_is_refused_with_advice() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(CannotCompact, match=r"cannot trace Branching: .*Write its forward without"):
        compact(Branching(), {}, noise(2, 3))


class Counting(nn.Module):
    """Computes with a channel count, which torch.fx treats as a constant."""

    def __init__(self, *, strict: bool) -> None:
        super().__init__()
        self.one, self.other, self.strict = nn.Linear(12, 30), nn.Linear(30, 5), strict

    def forward(self, x: Tensor) -> Tensor:
        if self.strict and self.one.out_features != 30:
            raise RuntimeError("there must be 30")
        return self.other(F.relu(self.one(x)) * self.one.out_features)


def test_a_forward_that_needs_its_channels_is_refused() -> None:
    net = built(lambda: Counting(strict=True))
    with pytest.raises(CannotCompact, match=r"without its dead channels: there must be 30\. Its"):
        compact(net, sparsify(net, 0.05), noise(4, 12))
    net = built(lambda: Counting(strict=False))
    with pytest.raises(CannotCompact, match=r"change by .* of the largest without its dead"):
        compact(net, sparsify(net, 0.05), noise(4, 12))


def test_tensors_overwritten_in_place_are_refused() -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            return self.other(x.relu_()) + x

    with pytest.raises(CannotCompact, match="one after an operation in place has overwritten it"):
        compact(Overwriting(), {}, noise(2, 4).float())

    class Adding(Overwriting):
        def forward(self, x: Tensor) -> Tensor:
            x = y = self.one(x)
            y += 1  # torch.fx sees y = y + 1
            return self.other(y) + x

    with pytest.raises(CannotCompact, match="computes something else than its forward"):
        compact(Adding(), {}, noise(2, 4).float())


def test_masks_that_do_not_fit_are_refused() -> None:
    net = built(mlp)
    everything = torch.ones(30, 12, dtype=torch.bool)
    with pytest.raises(SparsityError, match=r"Unknown weight '0.bias'.* Available: 0.weight, 3"):
        compact(net, {"0.bias": torch.ones(30, dtype=torch.bool)}, noise(4, 12))
    with pytest.raises(SparsityError, match=r"0.weight must be bool of shape \(30, 12\)"):
        compact(net, {"0.weight": everything.T}, noise(4, 12))
    with pytest.raises(SparsityError, match="must be bool"):
        compact(net, {"0.weight": everything.float()}, noise(4, 12))
    with pytest.raises(SparsityError, match=r"weights off its mask .* multiply it by the mask"):
        compact(net, {"0.weight": ~everything}, noise(4, 12))

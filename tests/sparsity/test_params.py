"""Maskable weights are chosen by type of layer and by patterns of names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from debiasbench.sparsity import (
    SparsityError,
    maskable,
)
from debiasbench.sparsity.params import select


def small_net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 36, 5),
        )


def test_patterns_choose_weights_and_a_misspelt_one_is_named() -> None:
    net = small_net()
    assert list(select(net, include=["4.*"])) == ["4.weight"]
    assert list(select(net, exclude=["4.*"])) == ["0.weight"]
    with pytest.raises(SparsityError, match=r"No layer matches 'fc\*'. Available: 0.weight"):
        select(net, exclude=["fc*"])
    with pytest.raises(SparsityError, match="select none of the 2 layers"):
        select(net, exclude=["*"])
    with pytest.raises(SparsityError, match="no convolution or linear layer"):
        select(nn.BatchNorm1d(3))


def test_maskable_weights_are_chosen_by_module_and_shared_ones_counted_once() -> None:
    net = nn.ModuleDict(
        {
            "a": nn.Conv1d(2, 3, 2),
            "norm": nn.LayerNorm(3),
            "emb": nn.Embedding(4, 3),
            "b": nn.Linear(3, 3),
            "c": nn.Linear(3, 3),
            "up": nn.ConvTranspose2d(2, 3, 2),
        }
    )
    net["c"].weight = net["b"].weight  # type: ignore[assignment]
    assert list(maskable(net)) == ["a.weight", "b.weight", "up.weight"]
    assert maskable(nn.BatchNorm1d(3)) == {}
    attention = nn.MultiheadAttention(8, 2)
    assert list(maskable(attention)) == ["in_proj_weight", "out_proj.weight"]
